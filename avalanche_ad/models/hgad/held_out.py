"""Likelihoods of the flow-GMM without some of the images its mixture is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avalanche_ad.models.gaussians import CategoryMixtures

if TYPE_CHECKING:
    from avalanche_ad.models.hgad.flow_gmm import FlowGMM

__all__ = ["likelihoods_without"]


def likelihoods_without(
    model: FlowGMM,
    category: int,
    x: Tensor,
    parts: Sequence[tuple[Tensor, Tensor]],
) -> Iterator[list[Tensor]]:
    """Yield log p(x|c)/D of positions by a mixture of some images alone.

    The mixture is made anew from statistics of the images fitted to, for those left
    out; those it is still made of are scored by the mixture as it is, which a few
    images less change little, at most of the cost.

    :param model: whose mixtures follow from statistics.
    :param category: a category that has been learned.
    :param x: features (N, layout.size) of its training normals.
    :param parts: rows to fit to, and rows (M,) to score, of each part.
    :return: for each part one (M, H, W) per level.
    """
    shapes = [(height, width) for height, width, _ in model.layout.levels]
    latents: list[list[tuple[Tensor, Tensor]]] = []
    for part in torch.split(x, 32):
        levels = model.layout.unflatten(model.features_of(part))
        latents.append(
            [model.latent_level(index, level) for index, level in enumerate(levels)]
        )
    joined = [
        tuple(torch.cat(tensors) for tensors in zip(*level, strict=True))
        for level in zip(*latents, strict=True)
    ]
    own = torch.tensor([category], device=x.device)
    as_it_is = [
        _densities(model.alignment.mixture(index), own, *level)
        for index, level in enumerate(joined)
    ]
    every = model.alignment.mixtures_without(
        model, category, model.features_of(x), [rest for rest, _ in parts]
    )
    for (rest, rows), mixtures in zip(parts, every, strict=True):
        held = ~torch.isin(rows, rest)
        levels = []
        for index, (z, log_det) in enumerate(joined):
            level = as_it_is[index][rows]
            level[held] = _densities(
                mixtures[index], own * 0, z[rows[held]], log_det[rows[held]]
            )
            levels.append(level.view(len(rows), *shapes[index]))
        yield levels


def _densities(
    mixture: CategoryMixtures, category: Tensor, z: Tensor, log_det: Tensor
) -> Tensor:
    """Return log p(x|c)/D (N, P) of latents (N, P, D) under one's mixture."""
    density = mixture.log_likelihood(z.flatten(0, 1), category)
    return (density.view(log_det.shape) + log_det) / z.shape[-1]
