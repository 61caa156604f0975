"""Avalanche plugins, one per file."""

from avalanche_ad.training.plugins.calibration import CalibrationPlugin
from avalanche_ad.training.plugins.center_freeze import CenterFreezePlugin
from avalanche_ad.training.plugins.drift_regularization import DriftRegularizationPlugin
from avalanche_ad.training.plugins.entropy_calibration import EntropyCalibrationPlugin
from avalanche_ad.training.plugins.feature_statistics_replay import (
    FeatureStatisticsReplayPlugin,
)
from avalanche_ad.training.plugins.finite_loss import FiniteLossPlugin
from avalanche_ad.training.plugins.fit_experience import (
    FitExperiencePlugin,
    FitFeatureGMMPlugin,
)
from avalanche_ad.training.plugins.flow_generative_replay import (
    FlowGenerativeReplayPlugin,
)
from avalanche_ad.training.plugins.frozen_flow import FrozenFlowPlugin
from avalanche_ad.training.plugins.functional_regularization import (
    FunctionalRegularizationPlugin,
)
from avalanche_ad.training.plugins.generative_replay import SelfGenerativeReplayPlugin
from avalanche_ad.training.plugins.gmm_alignment import GMMAlignmentPlugin
from avalanche_ad.training.plugins.gradient_clipping import GradientClippingPlugin
from avalanche_ad.training.plugins.incremental_mixture import IncrementalMixturePlugin
from avalanche_ad.training.plugins.intra_class_warmup import IntraClassWarmupPlugin
from avalanche_ad.training.plugins.latent_pseudo_rehearsal import (
    LatentPseudoRehearsalPlugin,
)
from avalanche_ad.training.plugins.packnet import PackNetPlugin
from avalanche_ad.training.plugins.painted_defects import PaintedDefectsPlugin
from avalanche_ad.training.plugins.schedule import WarmupCosinePlugin
from avalanche_ad.training.plugins.statistics_rehearsal import StatisticsRehearsalPlugin
from avalanche_ad.training.plugins.step_limit import StepLimitPlugin
from avalanche_ad.training.plugins.synaptic_intelligence import (
    SynapticIntelligencePlugin,
)
from avalanche_ad.training.plugins.training_mode import TrainingModePlugin

__all__ = [
    "CalibrationPlugin",
    "CenterFreezePlugin",
    "DriftRegularizationPlugin",
    "EntropyCalibrationPlugin",
    "FeatureStatisticsReplayPlugin",
    "FiniteLossPlugin",
    "FitExperiencePlugin",
    "FitFeatureGMMPlugin",
    "FlowGenerativeReplayPlugin",
    "FrozenFlowPlugin",
    "FunctionalRegularizationPlugin",
    "GMMAlignmentPlugin",
    "GradientClippingPlugin",
    "IncrementalMixturePlugin",
    "IntraClassWarmupPlugin",
    "LatentPseudoRehearsalPlugin",
    "PackNetPlugin",
    "PaintedDefectsPlugin",
    "SelfGenerativeReplayPlugin",
    "StatisticsRehearsalPlugin",
    "StepLimitPlugin",
    "SynapticIntelligencePlugin",
    "TrainingModePlugin",
    "WarmupCosinePlugin",
]
