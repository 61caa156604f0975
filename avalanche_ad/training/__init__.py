"""Training: losses, optimizer, dynamic models and plugins for Avalanche."""

from avalanche_ad.training.dynamic import (
    DynamicFeatureGMM,
    DynamicFlowGMM,
    DynamicPackNetFlowGMM,
)
from avalanche_ad.training.losses import FlowGMMLoss
from avalanche_ad.training.optimizers import make_optimizer, warmup_cosine

__all__ = [
    "DynamicFeatureGMM",
    "DynamicFlowGMM",
    "DynamicPackNetFlowGMM",
    "FlowGMMLoss",
    "make_optimizer",
    "warmup_cosine",
]
