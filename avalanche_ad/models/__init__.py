"""Density models of packed features; none of them imports Avalanche."""

from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.models.gaussians import IncrementalGMM
from avalanche_ad.models.hgad.flow import ConditionalFlow
from avalanche_ad.models.hgad.flow_gmm import FlowGMM
from avalanche_ad.models.hgad.mixture import HierarchicalMixture
from avalanche_ad.models.hgad.packnet_flow_gmm import PackNetFlowGMM
from avalanche_ad.models.scoring import AnomalyScores

__all__ = [
    "AnomalyModel",
    "AnomalyScores",
    "ConditionalFlow",
    "FeatureGMM",
    "FlowGMM",
    "HierarchicalMixture",
    "IncrementalGMM",
    "PackNetFlowGMM",
]
