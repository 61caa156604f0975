"""Avalanche plugins, one per file."""

from avalanche_ad.training.plugins.calibration import CalibrationPlugin
from avalanche_ad.training.plugins.finite_loss import FiniteLossPlugin
from avalanche_ad.training.plugins.fit_feature_gmm import FitFeatureGMMPlugin
from avalanche_ad.training.plugins.gradient_clipping import GradientClippingPlugin
from avalanche_ad.training.plugins.intra_class_warmup import IntraClassWarmupPlugin
from avalanche_ad.training.plugins.schedule import WarmupCosinePlugin

__all__ = [
    "CalibrationPlugin",
    "FiniteLossPlugin",
    "FitFeatureGMMPlugin",
    "GradientClippingPlugin",
    "IntraClassWarmupPlugin",
    "WarmupCosinePlugin",
]
