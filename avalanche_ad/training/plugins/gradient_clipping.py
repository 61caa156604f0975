"""Clip the norm of the gradient."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch.nn.utils import clip_grad_norm_

__all__ = ["GradientClippingPlugin"]


class GradientClippingPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Scale the gradient down to a largest Euclidean norm before every step.

    :param max_norm: largest norm over all parameters together.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> import torch
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> model.weight.grad = torch.tensor([[30.0, 40.0]])
    >>> GradientClippingPlugin(5.0).before_update(SimpleNamespace(model=model))
    >>> model.weight.grad.round()
    tensor([[3., 4.]])
    """

    def __init__(self, max_norm: float = 100.0) -> None:
        super().__init__()
        self.max_norm = max_norm

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Clip."""
        clip_grad_norm_(strategy.model.parameters(), self.max_norm)
