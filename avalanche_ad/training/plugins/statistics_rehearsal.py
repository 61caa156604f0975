"""Rehearse old categories from statistics of their features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.registry.options import Count
from avalanche_ad.training.plugins.flow_rehearsal import (
    FlowRehearsalPlugin,
    even_categories,
)
from avalanche_ad.training.plugins.statistics_keeper import StatisticsKeeper

__all__ = ["StatisticsRehearsalPlugin"]


class StatisticsRehearsalPlugin(
    StatisticsKeeper, FlowRehearsalPlugin[tuple[Tensor, Tensor]]
):
    """Train on samples of earlier categories' feature statistics beside the new images.

    The backbone is frozen, so statistics of its features never drift, as those of
    latents do. Each step adds the criterion's loss of a minibatch of features
    drawn from them, even over the categories learned,

        L = L(x, y) + α · L(x̃, ỹ),   x̃ ~ p(features | ỹ),

    from a pool that is drawn before the first step of an experience and dropped after
    it. No image is kept.

    :param batch_size: drawn images a step.
    :param alpha: α.
    :param pool_size: drawn images an experience.
    :param options: see :class:`StatisticsKeeper`.

    The idea is that of prototype augmentation (Zhu et al., PASS, CVPR 2021), here with
    a density of every position's features.

    >>> StatisticsRehearsalPlugin(statistics="low_rank").option("rank")
    16
    """

    def __init__(
        self,
        batch_size: Count = 8,
        alpha: float = 1.0,
        pool_size: Count = 256,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.batch_size = batch_size
        self.alpha = alpha
        self.pool_size = pool_size

    def draw_pool(
        self, model: FlowModel, categories: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Draw features and their categories."""
        statistics = model.alignment.statistics
        assert statistics is not None
        y = even_categories(categories, self.pool_size)
        y = y.to(model.device)
        return statistics.sample(y), y

    def rehearsal_loss(self, strategy: Any, pool: tuple[Tensor, Tensor]) -> Tensor:
        """Return α times the loss of a minibatch of the pool."""
        x, y = pool
        rows = torch.randint(len(y), (self.batch_size,)).to(y.device)
        loss: Tensor = strategy._criterion(strategy.model(x[rows]), y[rows])
        return self.alpha * loss
