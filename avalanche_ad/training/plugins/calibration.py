"""Calibrate the scores on training normals when an experience has been learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ad.models.base import AnomalyModel

__all__ = ["CalibrationPlugin"]


class CalibrationPlugin(SupervisedPlugin):  # type: ignore[misc]
    """After each experience, set the score's constants from training normals.

    One pass over the strategy's own dataloader, so exactly the data it trains on are
    used: the current experience's, those a replay memory adds, or all of it under joint
    and cumulative training. Categories that are not there keep their constants.

    :param images_per_category: the first so many images of each category.
    """

    def __init__(self, images_per_category: int = 32) -> None:
        super().__init__()
        self.images_per_category = images_per_category

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Calibrate the strategy's model."""
        model = strategy.model
        if not isinstance(model, AnomalyModel):
            return
        training = model.training
        model.eval()
        model.calibrate(self._batches(strategy))
        model.train(training)

    def _batches(self, strategy: Any) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: ANN401
        seen: Counter[int] = Counter()
        for batch in strategy.dataloader:
            x, y = batch[0], batch[1]
            wanted = []
            for row, category in enumerate(y.tolist()):
                if seen[category] < self.images_per_category:
                    seen[category] += 1
                    wanted.append(row)
            if wanted:
                yield x[wanted].to(strategy.device), y[wanted].to(strategy.device)
