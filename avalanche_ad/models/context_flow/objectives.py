"""What a context flow is trained by: likelihood, its tail, and noise as negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Weights",
    "contrast_loss",
    "drawn_crop",
    "drawn_positions",
    "log_density",
    "noised",
    "noised_regions",
    "painted_positions",
    "tail_aware",
]


class Weights(NamedTuple):
    """How much each part of a flow's objective counts, see :class:`ContextFlowGMM`.

    >>> Weights(likelihood=1.0).contrast
    1.0
    """

    likelihood: float = 0.0
    tail: float = 0.0
    tail_share: float = 0.05
    contrast: float = 1.0
    noise: float = 0.5


def log_density(z: Tensor, log_det: Tensor) -> Tensor:
    """Return log p(x)/D of a flow whose latents are standard normal.

    log p = −½ ‖z‖² − ½ D log 2π + log |det ∂z/∂x|, at every position.

    :param z: latents (N, H, W, D).
    :param log_det: each position's share (N, H, W).
    :return: (N, H, W).

    >>> log_density(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1)).item()
    -0.9189385175704956
    """
    dimensions = z.shape[-1]
    square = z.square().sum(-1)
    return (log_det - 0.5 * square) / dimensions - 0.5 * math.log(2 * math.pi)


def noised_regions(shape: Sequence[int], cell: int = 4) -> Tensor:
    """Return regions of random outline, about half of each image, (N, H, W) of 0 and 1.

    Where smooth noise, drawn at every ``cell``-th position, is above a threshold that
    is near its median.

    :param shape: (N, H, W).
    :param cell: positions between two draws, which are torch's of the CPU.

    >>> noised_regions((2, 8, 8)).shape
    torch.Size([2, 8, 8])
    """
    count, height, width = shape
    rows, columns = height // cell + 2, width // cell + 2
    coarse = torch.randn(count, 1, rows, columns)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")[:, 0]
    threshold = smooth.flatten(1).median(1).values + 0.2 * torch.randn(count)
    return (smooth > threshold[:, None, None]).float()


def noised(x: Tensor, regions: Tensor, deviation: float) -> Tensor:
    """Return features with Gaussian noise where the regions are.

    :param x: (N, H, W, D).
    :param regions: (N, H, W) of 0 and 1.
    :param deviation: of the noise, per channel.
    """
    noise = torch.randn(x.shape, dtype=x.dtype).to(x.device)
    return x + deviation * regions[..., None] * noise


def drawn_crop(size: Sequence[int], side: int) -> tuple[slice, slice]:
    """Return the rows and columns of a square drawn from a map.

    :param size: rows and columns of the map.
    :param side: of the square, at most those.
    """
    firsts = [int(torch.randint(max(1, length - side + 1), ())) for length in size]
    rows, columns = (slice(first, first + side) for first in firsts)
    return rows, columns


def drawn_positions(level: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return positions drawn of some images, (K, 3): image, row and column of each.

    :param level: features (N, H, W, D).
    :param rows: of the images (M,).
    :param count: K.

    >>> drawn_positions(torch.zeros(5, 4, 4, 2), torch.tensor([3]), 2)[:, 0]
    tensor([3, 3])
    """
    sizes = (len(rows), *level.shape[1:3])
    found = torch.stack([torch.randint(size, (count,)) for size in sizes], 1).to(rows)
    found[:, 0] = rows[found[:, 0]]
    return found


def painted_positions(where: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the positions of which a defect covers a third or more, (K, 3).

    :param where: masks of defects (N, M, M).
    :param size: rows and columns of positions, (H, W).
    :return: image, row and column of each.

    >>> painted_positions(torch.eye(4)[None], (2, 2)).tolist()
    [[0, 0, 0], [0, 1, 1]]
    """
    share = F.adaptive_avg_pool2d(where[:, None].float(), size)[:, 0]
    return (share >= 1 / 3).nonzero()


def contrast_loss(normal: Tensor, regions: Tensor) -> Tensor:
    """Return the loss of telling features from noised ones, (N,).

    Twice the cross-entropy, mean over positions: about that of noised and that of
    normal ones.

    :param normal: log-odds that positions are normal, of features with noise in some
        regions (N, H, W).
    :param regions: where, (N, H, W) of 0 and 1.

    The contrast is noise-contrastive estimation's (Gutmann and Hyvärinen, AISTATS 2010,
    Eq. 8); noise added to the features as negatives is SimpleNet's (Liu et al., CVPR
    2023, arXiv 2303.15140).

    >>> regions = torch.tensor([[[0.0, 1.0]]])
    >>> bool(contrast_loss(torch.tensor([[[9.0, -9.0]]]), regions) < 1e-3)
    True
    """
    return 2 * F.softplus(torch.where(regions > 0, normal, -normal)).mean((1, 2))


def tail_aware(loss: Tensor, weight: float, share: float) -> Tensor:
    """Return (1 − w) · mean + w · mean of the largest share of positions, (N,).

    :param loss: minus log p/D at every position (N, H, W).
    :param weight: w in [0, 1].
    :param share: of the positions that are the tail.

    Source: DeCoFlow (Im et al., arXiv 2606.26687), its tail-aware loss; w = 0.3 and a
    share of 0.05 in its released code.

    >>> tail_aware(torch.tensor([[[0.0, 1.0]]]), 0.5, 0.5)
    tensor([0.7500])
    """
    flat = loss.flatten(1)
    if not weight:
        return flat.mean(1)
    count = max(1, round(share * flat.shape[1]))
    tail = flat.topk(count, 1).values.mean(1)
    return (1 - weight) * flat.mean(1) + weight * tail
