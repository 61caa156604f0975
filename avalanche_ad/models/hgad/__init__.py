"""HGAD: flows into hierarchical Gaussian mixtures that grow by category."""

from avalanche_ad.models.hgad.flow import ConditionalFlow
from avalanche_ad.models.hgad.flow_gmm import FlowGMM
from avalanche_ad.models.hgad.loss import FlowGMMLoss
from avalanche_ad.models.hgad.mixture import HierarchicalMixture
from avalanche_ad.models.hgad.packnet_flow_gmm import PackNetFlowGMM

__all__ = [
    "ConditionalFlow",
    "FlowGMM",
    "FlowGMMLoss",
    "HierarchicalMixture",
    "PackNetFlowGMM",
]
