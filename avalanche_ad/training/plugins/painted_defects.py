"""Tell training images from themselves with painted defects."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.training.experiences import experiences_of
from avalanche_ad.training.plugins.requirements import required

__all__ = ["PaintedDefectsPlugin"]


class PaintedDefectsPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Add the model's loss of painted defects to that of every step.

    For each image of a minibatch an image of its category is drawn that has defects
    painted on, from those that the experience brings (``painted=True`` of
    :func:`~avalanche_ad.benchmarks.anomaly_benchmark`), and

        L = L(x, y) + defect_loss(x, y, x̃, mask),

    see :meth:`~avalanche_ad.models.AnomalyModel.defect_loss`. None is kept after the
    experience. A run adds the plugin by itself to a model that learns from them.

    >>> plugin = PaintedDefectsPlugin()
    >>> plugin.images
    {}
    """

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[int, list[tuple[Any, int]]] = {}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note which painted images there are of each category.

        :raises TrainingError: when the stream has none.
        """
        # under joint training, those of every experience
        experiences = experiences_of(strategy)
        self.images = {}
        for experience in experiences:
            painted = getattr(experience, "painted", None)
            if painted is None:
                raise TrainingError(
                    f"{type(self).__name__} found no image with painted defects in "
                    "the stream: make it with painted=True"
                )
            for row, category in enumerate(painted.targets):
                self.images.setdefault(category, []).append((painted, row))

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Draw painted images of the minibatch's categories, and add their loss."""
        model = required(strategy.model, AnomalyModel, self, "trains")
        x, target = strategy.mb_x, strategy.mb_y
        # rehearsed images of other experiences have none here
        rows = [row for row, one in enumerate(target.tolist()) if one in self.images]
        if not rows:
            return
        drawn = []
        for category in target[rows].tolist():
            images = self.images[category]
            items, row = images[int(torch.randint(len(images), ()))]
            drawn.append(items[row])
        defects = torch.stack([item[0] for item in drawn]).to(x.device)
        where = torch.stack([item[3] for item in drawn]).to(x.device)
        strategy.loss += model.defect_loss(x[rows], target[rows], defects, where)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Drop them."""
        self.images = {}
