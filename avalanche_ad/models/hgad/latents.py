"""What the flow-GMM's forward pass leaves on its output for losses and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from weakref import ref

import torch
from torch import Tensor

from avalanche_ad.models.gaussians import CategoryMixtures
from avalanche_ad.models.hgad.mixture import (
    category_log_likelihood,
    inner_centers,
    squared_distances,
)
from avalanche_ad.models.own_levels import OwnLevels
from avalanche_ad.models.scoring import negative_entropy

__all__ = ["Latents"]

_FAR = 1e9  # a squared distance whose posterior is 0, its logarithm finite


@dataclass(frozen=True)
class LevelLatents:
    """Dense latents of one feature level, with the mixture they are scored by.

    :param z: latents (N, H, W, D).
    :param log_det: log |det ∂z/∂x| (N, H, W).
    :param centers: (C, K, D) of the known categories, main centre first, then offsets.
    :param class_logits: φ (C,).
    :param inner_logits: ψ (C, K).
    :param aligned: the aligned mixtures that a category is scored by where it has one;
        ``None`` while there are none, and in training.
    :param mixture: the same for a loss by them, ``None`` where there is no such loss.
    """

    z: Tensor
    log_det: Tensor
    centers: Tensor
    class_logits: Tensor
    inner_logits: Tensor
    aligned: CategoryMixtures | None = None
    mixture: CategoryMixtures | None = None


@dataclass(frozen=True)
class Latents:
    """Dense latents of a minibatch.

    :param levels: one entry per feature level, finest first.
    :param known: indices (C,) of the categories the mixtures know, ascending; row c of
        a level's centres belongs to category ``known[c]``.

    >>> z = torch.zeros(1, 2, 2, 3)
    >>> centers, logits = torch.zeros(2, 1, 3), torch.zeros(2, 1)
    >>> level = LevelLatents(z, z[..., 0], centers, logits[:, 0], logits)
    >>> Latents([level], torch.arange(2)).negative_entropy()[0].mean()  # −log 2
    tensor(-0.6931)
    """

    levels: Sequence[LevelLatents]
    known: Tensor
    _aligned: OwnLevels = field(
        default_factory=OwnLevels, init=False, repr=False, compare=False
    )

    def log_likelihood(self, category: Tensor) -> list[Tensor]:
        """Return log p(x|c)/D per position, one (N, H, W) per level.

        Of the aligned mixture where the category has one, of the inner mixture
        otherwise. An aligned mixture is evaluated for the images asked for alone.

        :param category: index of the category of each image, (N,), a known one.
        """
        if any(level.aligned is not None for level in self.levels):
            return self._aligned.of(category, self._of_category)
        row = torch.searchsorted(self.known, category)
        return [_by_inner_mixture(level, row) for level in self.levels]

    def affinity(self, rows: Tensor, column: int) -> Tensor:
        """Return the affinity of images (M,) to a known category by all positions.

        See :class:`~avalanche_ad.models.hgad.FlowGMM`.

        :param rows: which images, (M,).
        :param column: row of the category among the known ones.
        """
        found = []
        category = int(self.known[column])
        for level, densities in zip(
            self.levels, self._of_category(rows, category), strict=True
        ):
            width = level.z.shape[-1]
            if level.aligned is None or not level.aligned.known[category]:
                z, log_det = level.z[rows].flatten(1, 2), level.log_det[rows].flatten(1)
                distance = squared_distances(z, level.centers[column, :1])[..., 0]
                constant = 0.5 * width * math.log(2 * math.pi)
                densities = (log_det - 0.5 * distance - constant) / width
            mean = densities.flatten(1).mean(1) * math.sqrt(width)
            found.append(mean + level.class_logits.log_softmax(0)[column])
        return torch.stack(found).mean(0)

    def _of_category(self, rows: Tensor, category: int) -> list[Tensor]:
        """Return log p(x|c)/D of some images under one category."""
        one = rows.new_tensor([category])
        row = torch.searchsorted(self.known, one).expand(len(rows))
        found = []
        for whole in self.levels:
            level = replace(whole, z=whole.z[rows], log_det=whole.log_det[rows])
            if level.aligned is None or not level.aligned.known[category]:
                found.append(_by_inner_mixture(level, row))
                continue
            own = level.aligned.log_likelihood(level.z.flatten(0, 2), one)
            log_likelihood = own.view(level.log_det.shape) + level.log_det
            found.append(log_likelihood / level.z.shape[-1])
        return found

    def negative_entropy(self, among: Tensor | None = None) -> list[Tensor]:
        """Return Σ_c p_c log p_c over the main centres, one (N, H, W) per level.

        :param among: which of the known categories count for each image, (N, C); all by
            default.
        """
        found = []
        for level in self.levels:
            distance = squared_distances(level.z, level.centers[:, 0])
            if among is not None:
                distance = distance.masked_fill(~among[:, None, None], _FAR)
            found.append(negative_entropy(distance))
        return found


def _by_inner_mixture(level: LevelLatents, row: Tensor) -> Tensor:
    """Return log p(x|c)/D (N, H, W) under inner mixtures, those of rows (N,)."""
    log_likelihood = category_log_likelihood(
        level.z.flatten(1, 2),
        level.log_det.flatten(1),
        inner_centers(level.centers)[row],
        level.inner_logits[row],
    )
    return log_likelihood.view(level.log_det.shape) / level.z.shape[-1]


class MeanLatents:
    """The mean latents of the last forward pass, and no graph.

    Those with a graph belong to the output they were computed with and go when it
    goes; copies and pickles remember nothing.
    """

    def __init__(self) -> None:
        self._mean: Tensor | None = None
        self._latents: ref[Latents] | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> MeanLatents:
        return MeanLatents()

    def __reduce__(self) -> tuple[type[MeanLatents], tuple[()]]:
        return MeanLatents, ()

    def note(self, output: Tensor, latents: Latents) -> None:
        """Remember the latents of a model's output, (N, sum of the levels' D)."""
        if output.requires_grad:
            self._mean, self._latents = None, ref(latents)
        else:
            self._mean, self._latents = _mean_latents(latents), None

    def read(self) -> Tensor | None:
        """Return them, ``None`` when an output with a graph is gone."""
        latents = self._latents() if self._latents else None
        return self._mean if latents is None else _mean_latents(latents)


def _mean_latents(latents: Latents) -> Tensor:
    return torch.cat([level.z.mean((1, 2)) for level in latents.levels], dim=1)
