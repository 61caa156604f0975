"""Classes by name: the package's own, those of other packages, or any by its path."""

from avalanche_ad.registry.registry import Registry, brought_by, unknown

__all__ = ["Registry", "brought_by", "unknown"]
