"""Rehearse old categories from statistics of their features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avalanche_ad.training.plugins.flow_rehearsal import even_categories
from avalanche_ad.training.plugins.statistics_keeper import StatisticsKeeper

__all__ = ["StatisticsRehearsalPlugin"]


class StatisticsRehearsalPlugin(StatisticsKeeper):
    """Train on samples of earlier categories' feature statistics beside the new images.

    The backbone is frozen, so statistics of its features never drift, as those of
    latents do. Each step adds the criterion's loss of a minibatch of packed features
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
    """

    def __init__(
        self,
        batch_size: int = 8,
        alpha: float = 1.0,
        pool_size: int = 256,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(**options)
        self.batch_size = batch_size
        self.alpha = alpha
        self.pool_size = pool_size
        self._pool: tuple[Tensor, Tensor] | None = None

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Draw the pool; there is nothing to draw before the first experience."""
        super().before_training_exp(strategy, *args, **kwargs)
        kept = strategy.model.statistics
        if kept is None or not len(kept.categories):
            return
        y = even_categories(kept.categories.tolist(), self.pool_size)
        y = y.to(strategy.model.level_maximum.device)
        self._pool = kept.sample(y), y

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Add the loss of a minibatch of the pool."""
        if self._pool is None:
            return
        x, y = self._pool
        rows = torch.randint(len(y), (self.batch_size,)).to(y.device)
        loss = strategy._criterion(strategy.model(x[rows]), y[rows])
        strategy.loss += self.alpha * loss

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Drop the pool and keep the statistics of the new categories."""
        self._pool = None
        super().after_training_exp(strategy, *args, **kwargs)
