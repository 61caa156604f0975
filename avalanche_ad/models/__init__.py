"""Models of features; none of them imports Avalanche."""

from avalanche_ad.models.anomaly_model import MASKED, AnomalyModel
from avalanche_ad.models.batches import by_category
from avalanche_ad.models.category_table import CategoryTable
from avalanche_ad.models.context_flow import ContextFlowGMM
from avalanche_ad.models.density_model import DensityModel
from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.models.gaussians import IncrementalGMM
from avalanche_ad.models.hgad import (
    ConditionalFlow,
    FlowGMM,
    HierarchicalMixture,
    PackNetFlowGMM,
)
from avalanche_ad.models.latents import attach_latents, latents_of
from avalanche_ad.models.padim import PaDiM
from avalanche_ad.models.patchcore import PatchCore
from avalanche_ad.models.scoring import AnomalyScores
from avalanche_ad.registry.options import ModelOptions

__all__ = [
    "MASKED",
    "AnomalyModel",
    "AnomalyScores",
    "CategoryTable",
    "ConditionalFlow",
    "ContextFlowGMM",
    "DensityModel",
    "FeatureGMM",
    "FlowGMM",
    "HierarchicalMixture",
    "IncrementalGMM",
    "ModelOptions",
    "PaDiM",
    "PackNetFlowGMM",
    "PatchCore",
    "attach_latents",
    "by_category",
    "latents_of",
]
