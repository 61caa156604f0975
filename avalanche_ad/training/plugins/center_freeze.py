"""Hold the centres and weights of categories learned before."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.training.plugins.requirements import required

__all__ = ["CenterFreezePlugin"]


class CenterFreezePlugin(SupervisedPlugin):  # type: ignore[misc]
    """Keep the mixtures of earlier experiences as they are: μ, δ, φ and ψ.

    Whatever term of the loss would move them, a stock plugin's penalty or rehearsal
    included, the rows of categories of earlier experiences take no gradient, and after
    the step they are put back, since momentum and weight decay move a parameter that
    has none. The flow and the new categories' mixtures learn as before; of φ the
    logits are held, not the prior they give, which is normalised over all categories.

    ``learned`` lists the categories held, from the second experience on.

    >>> CenterFreezePlugin().learned  # before the first experience
    []
    """

    # a stray early image would count as the category learned
    needs_disjoint_categories = True

    def __init__(self) -> None:
        super().__init__()
        self.learned: list[int] = []
        self._kept: list[tuple[nn.Parameter, Tensor]] = []

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check the model.

        :raises TrainingError: for a model without such centres.
        """
        required(strategy.model, FlowModel, self, "holds the centres of")

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Drop the gradients of what is held, and note its values."""
        if not self.learned:
            return
        self._kept = []
        for parameter in strategy.model.category_parameters():
            if parameter.grad is not None:
                parameter.grad[self.learned] = 0
            self._kept.append((parameter, parameter.detach()[self.learned].clone()))

    @torch.no_grad()
    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put back what the optimizer moved without a gradient."""
        for parameter, kept in self._kept:
            parameter[self.learned] = kept
        self._kept = []

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Hold the categories of this experience from now on."""
        new = strategy.experience.classes_in_this_experience
        self.learned = sorted({*self.learned, *new})
