"""Models of features; none of them imports Avalanche."""

from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.density_model import DensityModel
from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.models.gaussians import IncrementalGMM
from avalanche_ad.models.hgad import (
    ConditionalFlow,
    FlowGMM,
    HierarchicalMixture,
    PackNetFlowGMM,
)
from avalanche_ad.models.scoring import AnomalyScores
from avalanche_ad.registry.options import ModelOptions

__all__ = [
    "AnomalyModel",
    "AnomalyScores",
    "ConditionalFlow",
    "DensityModel",
    "FeatureGMM",
    "FlowGMM",
    "HierarchicalMixture",
    "IncrementalGMM",
    "ModelOptions",
    "PackNetFlowGMM",
]
