"""Calibrate the scores on training normals when an experience has been learned."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch.utils.data import DataLoader, Subset

from avalanche_ad.models.base import AnomalyModel

__all__ = ["CalibrationPlugin"]


class CalibrationPlugin(SupervisedPlugin):  # type: ignore[misc]
    """After each experience, set the score's constants from its training normals.

    Only data the strategy trains on is used: the current experience's, or all of it
    under joint and cumulative training. Categories of earlier experiences keep the
    constants of their own time.

    :param images_per_category: at most this many images per category, evenly spaced.
    """

    def __init__(self, images_per_category: int = 32) -> None:
        super().__init__()
        self.images_per_category = images_per_category

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Calibrate the strategy's model."""
        model = strategy.model
        if not isinstance(model, AnomalyModel):
            return
        dataset = strategy.adapted_dataset
        targets = torch.as_tensor(list(dataset.targets))
        chosen = []
        for category in sorted(set(targets.tolist())):
            index = (targets == category).nonzero().flatten()
            count = min(len(index), self.images_per_category)
            chosen += index[torch.linspace(0, len(index) - 1, count).long()].tolist()
        batches = [
            (batch[0].to(strategy.device), batch[1].to(strategy.device))
            for batch in DataLoader(Subset(dataset, chosen), batch_size=32)
        ]
        training = model.training
        model.eval()
        model.calibrate(batches)
        model.train(training)
