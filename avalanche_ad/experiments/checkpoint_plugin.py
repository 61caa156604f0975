"""Checkpoints inside a task, between two of its epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import JointTraining

__all__ = ["CHECKPOINT_MINUTES", "CheckpointPlugin", "finish_training"]

CHECKPOINT_MINUTES = 10.0
"""Between two checkpoints within an experience, where nothing else is said."""


class CheckpointPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Before an epoch, once some minutes have gone by, let a run save its state.

    It must be the first of the strategy's plugins: then nothing of the epoch to come
    has happened and all of the last one has, so that the state is that between two
    epochs. The minibatch and its graph are let go of before, since nothing needs them
    any more. An epoch draws its order from the global generators when it begins, so a
    run that goes on from there with :func:`finish_training` gives the same bits.

    :param minutes: between two saves; 0 saves before every epoch but a task's first.

    ``save`` is what saves, ``None`` for nothing; it is no part of the saved state.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> clock = SimpleNamespace(train_exp_epochs=0)
    >>> strategy = SimpleNamespace(clock=clock, _make_empty_loss=float)
    >>> plugin = CheckpointPlugin(minutes=0)
    >>> plugin.save = lambda: print("saved before epoch", clock.train_exp_epochs)
    >>> for clock.train_exp_epochs in range(3):
    ...     plugin.before_training_epoch(strategy)
    saved before epoch 1
    saved before epoch 2
    """

    def __init__(self, minutes: float = CHECKPOINT_MINUTES) -> None:
        super().__init__()
        self.minutes = minutes
        self.save: Callable[[], None] | None = None
        self.start()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "save": None}

    def start(self) -> None:
        """Count the minutes from now."""
        self._last = time.monotonic()

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Save where it is time."""
        if self.save is None or strategy.clock.train_exp_epochs == 0:
            return
        if time.monotonic() - self._last < 60 * self.minutes:
            return
        strategy.mbatch = strategy.mb_output = None
        strategy.loss = strategy._make_empty_loss()
        self.save()
        self.start()


def finish_training(strategy: Any, **kwargs: Any) -> None:
    """Learn the epochs that are left of a task whose state was saved between two.

    The rest of Avalanche's ``train``: the same calls in the same order.

    :param strategy: as it was when :class:`CheckpointPlugin` saved.
    :param kwargs: those that ``train`` was given.
    """
    while strategy.clock.train_exp_epochs < strategy.train_epochs:
        strategy._before_training_epoch(**kwargs)
        if strategy._stop_training:
            strategy._stop_training = False
            break
        strategy.training_epoch(**kwargs)
        strategy._after_training_epoch(**kwargs)
    strategy._after_training_exp(**kwargs)
    strategy._after_training(**kwargs)
    if isinstance(strategy, JointTraining):
        strategy._is_fitted = True
    else:
        strategy._train_cleanup()
