"""Stop a run whose loss is not finite, naming what broke."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_ad.errors import TrainingError

__all__ = ["FiniteLossPlugin"]


class FiniteLossPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Raise before the step when the loss is not finite.

    The message names the experience, the step, and the level and term that broke; when
    every term of the criterion is finite, what a plugin added did. Training loops with
    inner updates of their own, such as Avalanche's MER, show no loss before their
    steps: there the run stops after the first iteration that broke.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> clock = SimpleNamespace(train_exp_counter=1, train_exp_iterations=7)
    >>> strategy = SimpleNamespace(
    ...     loss=torch.tensor(float("nan")), clock=clock, _criterion=None
    ... )
    >>> FiniteLossPlugin().after_backward(strategy)
    Traceback (most recent call last):
    ...
    avalanche_ad.errors.TrainingError: the loss became nan in experience 1, step 7 ...
    """

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check the loss with all that plugins added to it."""
        self._check(strategy)

    def after_training_iteration(
        self,
        strategy: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Check the loss of a loop that has no backward pass to show."""
        self._check(strategy)

    def _check(self, strategy: Any) -> None:
        if bool(torch.isfinite(strategy.loss)):
            return
        culprit = "the criterion, or what a plugin added to the loss"
        terms = getattr(strategy._criterion, "terms", None)
        if terms is not None:
            culprit = "what a plugin added to the loss"
            for level, values in enumerate(terms):
                broken = (~torch.isfinite(values)).nonzero().flatten().tolist()
                if broken:
                    known = strategy._criterion.term_names
                    names = ", ".join(known[index] for index in broken)
                    culprit = f"level {level}, term {names}"
                    break
        raise TrainingError(
            f"the loss became {strategy.loss.item()} in experience "
            f"{strategy.clock.train_exp_counter}, step "
            f"{strategy.clock.train_exp_iterations} ({culprit}): lower the learning "
            "rate ([training] lr) or the gradient norm ([training] gradient_clip)"
        )
