"""PatchCore: nearest neighbours in a coreset of normal feature vectors."""

from avalanche_ad.models.patchcore.patchcore import PatchCore, PatchCoreOptions

__all__ = ["PatchCore", "PatchCoreOptions"]
