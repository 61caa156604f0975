"""What a model's forward pass leaves on its output for losses and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from avalanche_ad.models.gaussians import CategoryMixtures

__all__ = ["Latents", "LevelLatents", "attach_latents", "latents_of"]


@dataclass(frozen=True)
class LevelLatents:
    """Dense latents of one feature level, with the mixture they are judged by.

    :param z: latents (N, H, W, D).
    :param log_det: log |det ∂z/∂x| (N, H, W).
    :param centers: (C, K, D) of the known categories, main centre first, then offsets.
    :param class_logits: φ (C,).
    :param inner_logits: ψ (C, K).
    :param aligned: log p(z|c) under the aligned mixtures (N, H, W, C), nan for a
        category without one; ``None`` while there are none, and in training.
    :param mixture: the aligned mixtures themselves, for a loss that asks for each
        image's own category alone.
    """

    z: Tensor
    log_det: Tensor
    centers: Tensor
    class_logits: Tensor
    inner_logits: Tensor
    aligned: Tensor | None = None
    mixture: CategoryMixtures | None = None


@dataclass(frozen=True)
class Latents:
    """Dense latents of a minibatch.

    :param levels: one entry per feature level, finest first.
    :param known: indices (C,) of the categories the mixtures know, ascending; row c of
        a level's centres belongs to category ``known[c]``.
    """

    levels: Sequence[LevelLatents]
    known: Tensor


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
