"""What a model's forward pass leaves on its output for losses and scores."""

from __future__ import annotations

from torch import Tensor

__all__ = ["attach_latents", "latents_of"]


def attach_latents(output: Tensor, latents: object) -> Tensor:
    """Attach latents to a model's output tensor and return the tensor.

    The graph lives as long as the output does; nothing is kept on the model. Slicing
    or arithmetic makes a new tensor without them.
    """
    output.latents = latents  # type: ignore[attr-defined]
    return output


def latents_of(output: Tensor) -> object | None:
    """Return what ``attach_latents`` attached, ``None`` when it was dropped."""
    return getattr(output, "latents", None)
