"""A model's own loss as the criterion that Avalanche's strategies are given."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.models.latents import attach_latents, latents_of

__all__ = [
    "MASKED",
    "ModelLoss",
    "checked_reduction",
    "image_loss",
    "reduced",
    "with_columns",
]


MASKED = -1e4  # affinity to a category not seen yet: finite, so softmax stays so


class _HasLoss(Protocol):
    def loss(self, output: Tensor, target: Tensor) -> Tensor: ...


class ModelLoss(nn.Module):
    """``criterion(output, target)`` by a model's own ``loss``.

    :param model: with ``loss(output, target)`` per image (N,); it stays outside the
        module tree.
    :param reduction: ``"mean"``, ``"sum"`` or ``"none"`` over images.

    >>> import torch
    >>> class Model:
    ...     loss = staticmethod(image_loss)
    >>> ModelLoss(Model())(torch.tensor([[-1.0, -2.0]]), torch.tensor([1]))
    tensor(2.)
    """

    def __init__(self, model: _HasLoss, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = checked_reduction(reduction)
        self._model = (model,)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a minibatch.

        :param output: the model's output (N, C).
        :param target: category indices (N,).
        """
        output = with_columns(output, target)
        loss = self._model[0].loss(output, target)
        return reduced(loss, self.reduction)


def with_columns(output: Tensor, target: Tensor) -> Tensor:
    """Return an output with a column for every target.

    An evaluation may hold categories still to come, without a column yet: those are of
    least affinity.
    """
    last = int(target.max()) if len(target) else -1
    if (missing := last + 1 - output.shape[1]) <= 0:
        return output
    wider = F.pad(output, (0, missing), value=MASKED)
    return attach_latents(wider, latents_of(output))


def checked_reduction(reduction: str) -> str:
    """Return a reduction that :func:`reduced` knows.

    :raises ValueError: for another.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"expected reduction 'mean', 'sum' or 'none', got {reduction!r}"
        )
    return reduction


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """Return the mean or sum of losses (N,), or the losses."""
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def image_loss(output: Tensor, target: Tensor) -> Tensor:
    """Return minus each image's affinity to its category, (N,).

    Of joint log-likelihoods, −out_y = −logsumexp_c out_c + cross-entropy(out, y): the
    image's marginal likelihood and its category at once, in the units of the output. It
    stands in for dense losses where the latents are lost.

    :param output: affinities (N, C), such as joint log-likelihoods.
    :param target: category indices (N,).

    >>> import torch
    >>> image_loss(torch.tensor([[-1.0, -2.0]]), torch.tensor([1]))
    tensor([2.])
    """
    return -output.gather(1, target[:, None]).squeeze(1)
