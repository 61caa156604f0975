"""Clip the norm of the gradient."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch.nn.utils import clip_grad_norm_

__all__ = ["GradientClippingPlugin"]


class GradientClippingPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Scale the gradient down to a largest Euclidean norm before every step.

    :param max_norm: largest norm over all parameters together.
    """

    def __init__(self, max_norm: float = 100.0) -> None:
        super().__init__()
        self.max_norm = max_norm

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Clip."""
        clip_grad_norm_(strategy.model.parameters(), self.max_norm)
