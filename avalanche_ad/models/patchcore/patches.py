"""Locally aware patch features, and which image one came from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

__all__ = ["images_of", "patch_features"]


def patch_features(levels: Sequence[Tensor], neighbourhood: int = 3) -> Tensor:
    """Return what stands for each position: its neighbourhood's mean at every level.

    Coarser levels are interpolated to the first, the finest, and all are concatenated.
    At the border the mean is of the positions that are there.

    Source: Roth et al., CVPR 2022, Sec. 3.1, Eq. 1-2.

    :param levels: one (N, H, W, D_l) per level, finest first.
    :param neighbourhood: positions a side, an odd number; 1 for the position alone.
    :return: (N, H, W, Σ D_l) of the first level's H and W.
    """
    near = (neighbourhood, 1, neighbourhood // 2)
    parts = []
    for level in levels:
        part = level.permute(0, 3, 1, 2)
        if neighbourhood > 1:
            part = avg_pool2d(part, *near, count_include_pad=False)
        if level.shape[1:3] != levels[0].shape[1:3]:
            part = interpolate(part, levels[0].shape[1:3], mode="bilinear")
        parts.append(part)
    return torch.cat(parts, 1).permute(0, 2, 3, 1)


def images_of(vectors: Tensor, patches: Tensor) -> Tensor:
    """Return which image each vector is a patch of, told by its very bits.

    :param vectors: (M, D), of the type they are kept in.
    :param patches: (N, P, D), of the same type.
    :return: (M,), the first such image; −1 for none.
    """
    count, positions, _ = patches.shape
    keys = torch.cat([_keys(image) for image in patches])
    order = keys.argsort(stable=True)
    wanted = _keys(vectors)
    place = torch.searchsorted(keys[order], wanted).clamp(max=count * positions - 1)
    row = order[place]
    return torch.where(keys[row] == wanted, row // positions, -1)


def _keys(rows: Tensor) -> Tensor:
    """Return a hash of each row of 16-bit numbers, (R,)."""
    bits = rows.contiguous().view(torch.int16).long()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator)
    return (bits * weights.to(bits.device)).sum(1)
