"""What the plugins that use feature statistics have in common: they take them."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.feature_statistics import (
    FeatureStatistics,
    StatisticsPrecision,
)
from avalanche_ad.models.flow_gmm import FlowGMM
from avalanche_ad.models.incremental_gmm import Covariance
from avalanche_ad.models.packnet_flow_gmm import PackNetFlowGMM
from avalanche_ad.training.dynamic import features_by_category

__all__ = ["StatisticsKeeper"]


class StatisticsKeeper(SupervisedPlugin):  # type: ignore[misc]
    """After each experience, keep the statistics of its categories with the model.

    Several of these plugins on one strategy share what the first of them takes.

    :param components: Gaussians K per category and level.
    :param statistics: form of their covariances.
    :param rank: of ``"low_rank"`` covariances.
    :param mean_field: whether a mean per position is kept.
    :param precision: type of number that is kept.
    :param shrinkage: of the covariances, relative to the mean variance.
    :param max_positions: feature vectors per category and level that the EM sees.
    :param max_iter: its steps at most. Few vectors and few steps are a tenth of
        :class:`FeatureStatistics`' own time, and detect defects no worse.
    :param seed: decides the vectors used and the start of the EM; the model's by
        default.
    :param others: of the class that comes next in a subclass of several.
    """

    needs_sharp_tasks = False  # statistics of more images take a stray few's place

    def __init__(
        self,
        components: int = 10,
        statistics: Covariance = "full",
        rank: int = 16,
        mean_field: bool = False,
        precision: StatisticsPrecision = "float16",
        shrinkage: float = 1e-2,
        max_positions: int = 5000,
        max_iter: int = 4,
        seed: int | None = None,
        **others: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**others)
        self.components = components
        self.shrinkage = shrinkage
        self.seed = seed
        self._options: dict[str, Any] = {
            "covariance": statistics,
            "rank": rank,
            "mean_field": mean_field,
            "precision": precision,
            "shrinkage": shrinkage,
            "max_positions": max_positions,
            "max_iter": max_iter,
        }

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Check the model.

        :raises TrainingError: for a model without one flow and a mixture.
        """
        if not isinstance(strategy.model, FlowGMM):
            raise TrainingError(
                f"{type(self).__name__} keeps statistics with a FlowGMM, got a "
                f"{type(strategy.model).__name__}: use it with the flow_gmm model"
            )
        if isinstance(strategy.model, PackNetFlowGMM):
            raise TrainingError(
                f"{type(self).__name__} follows one flow, and under PackNet every task "
                "has its own: leave one of the two out"
            )
        if self.seed is None:
            self.seed = strategy.model.seed
        super().before_training_exp(strategy, *args, **kwargs)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Take the statistics of the categories learned that have none yet."""
        super().after_training_exp(strategy, *args, **kwargs)
        # a data loader draws too
        with torch.random.fork_rng(devices=[]):
            self.keep(strategy.model, features_by_category(strategy.adapted_dataset))

    def keep(self, model: FlowGMM, features: dict[int, Tensor]) -> None:
        """Take the statistics of categories that have none yet, or of fewer images.

        The latter where a category's first few images arrived early, in a blurry
        stream.

        :param model: what they are kept with.
        :param features: packed features (N, size) by category.
        """
        device = model.level_maximum.device
        if model.statistics is None:
            made = FeatureStatistics(
                model.layout, self.components, seed=self.seed or 0, **self._options
            )
            model.statistics = made.to(device)
        statistics = model.statistics
        # a loaded model's say their form alone
        statistics.shrinkage = self.shrinkage
        statistics.max_positions = self._options["max_positions"]
        statistics.max_iter = self._options["max_iter"]
        statistics.seed = self.seed or 0
        statistics.resize(max(features, default=-1) + 1)
        for category, x in features.items():
            if len(x) > int(statistics.images[category]):
                statistics.fit_category(category, x.to(device))
