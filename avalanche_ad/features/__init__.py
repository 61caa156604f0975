"""Frozen backbones, and the cache that runs each image through them only once."""

from avalanche_ad.features.backbone import Backbone, TimmBackbone
from avalanche_ad.features.cache import CachedFeatures, CacheEntry, FeatureCache
from avalanche_ad.features.embedded import EmbeddedBackbone
from avalanche_ad.features.filterbank import FilterBank
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.features.registry import backbone_names, make_backbone

__all__ = [
    "Backbone",
    "CacheEntry",
    "CachedFeatures",
    "EmbeddedBackbone",
    "FeatureCache",
    "FeatureLayout",
    "FilterBank",
    "TimmBackbone",
    "backbone_names",
    "make_backbone",
]
