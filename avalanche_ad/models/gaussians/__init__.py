"""Gaussians: algebra, mixtures, stepwise EM, statistics of features, drift."""

from avalanche_ad.models.gaussians.algebra import (
    component_log_likelihood,
    precision_roots,
    squared_mahalanobis,
)
from avalanche_ad.models.gaussians.category_mixtures import CategoryMixtures
from avalanche_ad.models.gaussians.covariances import (
    Covariance,
    low_rank_plus_diagonal,
    woodbury_update,
)
from avalanche_ad.models.gaussians.drift import (
    linear_drift,
    moved_gaussians,
    semantic_drift,
)
from avalanche_ad.models.gaussians.feature_statistics import FeatureStatistics
from avalanche_ad.models.gaussians.fitting import drawn_rows, fit_mixture, refitted
from avalanche_ad.models.gaussians.incremental_gmm import IncrementalGMM
from avalanche_ad.models.gaussians.kept_statistics import (
    KeptStatistics,
    StatisticsForm,
    StatisticsPrecision,
)
from avalanche_ad.models.gaussians.level_mixtures import LevelMixtures
from avalanche_ad.models.gaussians.mixture import CompactMixture
from avalanche_ad.models.gaussians.mixture_likelihood import mixture_log_likelihood
from avalanche_ad.models.gaussians.moments import Moments
from avalanche_ad.models.gaussians.place import moments_without
from avalanche_ad.models.gaussians.place_density import PlaceDensity
from avalanche_ad.models.gaussians.place_statistics import (
    PlaceStatistics,
    statistics_like,
)

__all__ = [
    "CategoryMixtures",
    "CompactMixture",
    "Covariance",
    "FeatureStatistics",
    "IncrementalGMM",
    "KeptStatistics",
    "LevelMixtures",
    "Moments",
    "PlaceDensity",
    "PlaceStatistics",
    "StatisticsForm",
    "StatisticsPrecision",
    "component_log_likelihood",
    "drawn_rows",
    "fit_mixture",
    "linear_drift",
    "low_rank_plus_diagonal",
    "mixture_log_likelihood",
    "moments_without",
    "moved_gaussians",
    "precision_roots",
    "refitted",
    "semantic_drift",
    "squared_mahalanobis",
    "statistics_like",
    "woodbury_update",
]
