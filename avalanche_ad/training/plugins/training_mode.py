"""Keep the model in training mode whatever other plugins leave it in."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

__all__ = ["TrainingModePlugin"]


class TrainingModePlugin(SupervisedPlugin):  # type: ignore[misc]
    """Put the model into training mode before every forward pass of training.

    Avalanche's RWalk takes its gradient in evaluation mode before every step and leaves
    the model there; a flow-GMM then trains on all positions instead of the drawn ones.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> import torch
    >>> model = torch.nn.Linear(2, 1).eval()
    >>> TrainingModePlugin().before_forward(SimpleNamespace(model=model))
    >>> model.training
    True
    """

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the model into training mode."""
        strategy.model.train()
