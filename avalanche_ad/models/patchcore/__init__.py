"""PatchCore: nearest neighbours in a coreset of normal feature vectors."""

from avalanche_ad.models.patchcore.options import PatchCoreOptions
from avalanche_ad.models.patchcore.patchcore import PatchCore

__all__ = ["PatchCore", "PatchCoreOptions"]
