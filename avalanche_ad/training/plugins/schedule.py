"""Warm-up and cosine decay of the learning rate within each experience."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_ad.training.optimizers import warmup_cosine

__all__ = ["WarmupCosinePlugin"]


class WarmupCosinePlugin(SupervisedPlugin):  # type: ignore[misc]
    """Set the learning rate of every step by a warm-up and half a cosine.

    The schedule starts anew with every experience; every parameter group is scaled
    from the rate it had when training first began.

    :param warmup_epochs: epochs of linear warm-up; may be a fraction.
    :param final_factor: factor at the end of an experience.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> strategy = SimpleNamespace(
    ...     dataloader=[None], train_epochs=4, optimizer=optimizer
    ... )
    >>> plugin = WarmupCosinePlugin(warmup_epochs=1)
    >>> for _ in range(4):
    ...     plugin.before_training_iteration(strategy)
    ...     print(round(optimizer.param_groups[0]["lr"], 2))
    0.5
    1.0
    0.75
    0.25
    """

    def __init__(self, warmup_epochs: float = 2.0, final_factor: float = 0.0) -> None:
        super().__init__()
        self.warmup_epochs = warmup_epochs
        self.final_factor = final_factor
        self._step = 0

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start the schedule."""
        self._step = 0

    def before_training_iteration(
        self,
        strategy: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Set the rate of the step that follows."""
        per_epoch = len(strategy.dataloader)
        factor = warmup_cosine(
            self._step,
            strategy.train_epochs * per_epoch,
            round(min(self.warmup_epochs, strategy.train_epochs / 2) * per_epoch),
            self.final_factor,
        )
        for group in strategy.optimizer.param_groups:
            base = group.setdefault("initial_lr", group["lr"])
            group["lr"] = base * factor
        self._step += 1
