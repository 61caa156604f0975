"""Density models of packed features; none of them imports Avalanche."""

from avalanche_ad.models.base import AnomalyModel
from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.models.flow import ConditionalFlow
from avalanche_ad.models.flow_gmm import FlowGMM
from avalanche_ad.models.gmm import HierarchicalMixture
from avalanche_ad.models.incremental_gmm import IncrementalGMM
from avalanche_ad.models.packnet_flow_gmm import PackNetFlowGMM
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
