"""A budget of steps for each category, whatever the number of its images."""

from __future__ import annotations

import math
from typing import Any

from avalanche.core import SupervisedPlugin

__all__ = ["StepLimitPlugin", "limited_epochs"]


def limited_epochs(epochs: int, steps: int, categories: int, minibatches: int) -> int:
    """Return the epochs that give every category at most so many steps, at least 1.

    min(epochs, ⌈steps · categories / minibatches⌉): whole epochs, so that all images
    are seen as often.

    :param epochs: no more than these.
    :param steps: for each category.
    :param categories: of the experience.
    :param minibatches: in an epoch.

    >>> limited_epochs(80, 600, categories=3, minibatches=75)
    24
    """
    return min(epochs, max(1, math.ceil(steps * categories / max(1, minibatches))))


class StepLimitPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Train an experience for fewer epochs where it has many images.

    With a fixed number of epochs, categories of many images take many more steps than
    such of few. See :func:`limited_epochs`; the strategy's ``train_epochs`` are as they
    were after the experience.

    :param steps: for each category of the experience.

    >>> from types import SimpleNamespace as Names
    >>> strategy = Names(
    ...     train_epochs=80,
    ...     dataloader=[None] * 75,
    ...     adapted_dataset=Names(targets=Names(uniques={0, 1, 2})),
    ... )
    >>> plugin = StepLimitPlugin(600)
    >>> plugin.before_training_exp(strategy)
    >>> strategy.train_epochs
    24
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self._epochs = 0

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Lower the number of epochs."""
        self._epochs = strategy.train_epochs
        strategy.train_epochs = limited_epochs(
            self._epochs,
            self.steps,
            len(strategy.adapted_dataset.targets.uniques),
            len(strategy.dataloader),
        )

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Set it back."""
        strategy.train_epochs = self._epochs
