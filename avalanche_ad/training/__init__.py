"""Training: losses, optimizer, dynamic models and plugins for Avalanche."""

from avalanche_ad.models.hgad.loss import FlowGMMLoss
from avalanche_ad.training.dynamic import (
    DynamicFeatureGMM,
    DynamicFlowGMM,
    DynamicPackNetFlowGMM,
    dynamic,
    load_dynamic_model,
)
from avalanche_ad.training.optimizers import make_optimizer, warmup_cosine

__all__ = [
    "DynamicFeatureGMM",
    "DynamicFlowGMM",
    "DynamicPackNetFlowGMM",
    "FlowGMMLoss",
    "dynamic",
    "load_dynamic_model",
    "make_optimizer",
    "warmup_cosine",
]
