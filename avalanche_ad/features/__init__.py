"""Frozen backbones, and the cache that runs each image through them only once."""

from avalanche_ad.features.backbone import Backbone
from avalanche_ad.features.backbones.embedded import EmbeddedBackbone
from avalanche_ad.features.backbones.filterbank import FilterBank
from avalanche_ad.features.backbones.timm import TimmBackbone
from avalanche_ad.features.cache import FeatureCache
from avalanche_ad.features.cached import CachedFeatures
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.features.registry import BACKBONES, check_backbone, make_backbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "CachedFeatures",
    "EmbeddedBackbone",
    "FeatureCache",
    "FeatureLayout",
    "FilterBank",
    "TimmBackbone",
    "check_backbone",
    "make_backbone",
]
