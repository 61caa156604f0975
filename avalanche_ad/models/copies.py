"""Which of a category's images are copies of one, by their features."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["copies_of"]

_DIMENSIONS = 64
_OF_SPREAD = 0.02
_OF_LENGTH = 1e-3
_ROWS = 1024


def copies_of(x: Tensor) -> Tensor:
    """Return of which image each one is a copy.

    Two are copies when they lie nearer to each other than a fiftieth of the median
    distance to the mean, or a thousandth of the median length. Equal files do not have
    equal features: these differ in the last bits with the batch they were computed in,
    and are kept in half precision. Other photographs of the very same scene differ by
    the camera's noise, which is far more.

    Distances are taken between random projections to 64 dimensions, which keep them
    but for a tenth or so.

    :param x: features (N, D).
    :return: (N,), the index of the first image that each is a copy of: its own for
        one that is none.

    >>> x = torch.randn(3, 100)
    >>> copies_of(torch.cat([x, x[1:2] + 1e-4]))
    tensor([0, 1, 2, 1])
    """
    group = torch.arange(len(x), device=x.device)
    if len(x) < 2:
        return group
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(x.shape[1], _DIMENSIONS, generator=generator)
    directions = directions.to(x) / _DIMENSIONS**0.5
    centred = x - x.mean(0)
    limit = torch.maximum(
        _OF_SPREAD * centred.norm(dim=1).median(), _OF_LENGTH * x.norm(dim=1).median()
    )
    places = centred @ directions
    for start in range(0, len(x), _ROWS):
        rows = places[start : start + _ROWS]
        # not by way of a product, whose rounding hides what is small
        distance = torch.cdist(
            rows, places, compute_mode="donot_use_mm_for_euclid_dist"
        )
        group[start : start + _ROWS] = (distance <= limit).int().argmax(1)
    while not torch.equal(group[group], group):
        group = group[group]
    return group
