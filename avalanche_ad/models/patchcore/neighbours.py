"""Exact nearest neighbours by blocks of one matrix product each."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean_distance", "nearest_squares"]

_QUERIES, _VECTORS = 512, 2048  # a block of products stays in the cache


def nearest_squares(x: Tensor, bank: Tensor, neighbours: int = 1) -> Tensor:
    """Return squared Euclidean distances to the nearest vectors, ascending.

    ‖x − b‖² = ‖x‖² + ‖b‖² − 2 x·b, about the bank's mean, so that a common offset costs
    no digits.

    :param x: (P, D).
    :param bank: (M, D), of any floating type.
    :param neighbours: k.
    :return: (P, k), at least 0; infinity in the place of those beyond M.

    >>> bank = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> nearest_squares(torch.zeros(1, 2), bank, 2)
    tensor([[ 0., 25.]])
    """
    found = x.new_full((len(x), neighbours), torch.inf)
    if not len(bank):
        return found
    bank = bank.to(x)
    centre = bank.mean(0)
    blocks = [
        (part.T, part.square().sum(1)) for part in torch.split(bank - centre, _VECTORS)
    ]
    for start in range(0, len(x), _QUERIES):
        rows = x[start : start + _QUERIES] - centre
        best = found[start : start + _QUERIES]
        for vectors, square in blocks:
            distance = torch.addmm(square, rows, vectors, alpha=-2.0)
            if neighbours == 1:
                torch.minimum(best[:, 0], distance.amin(1), out=best[:, 0])
            else:
                both = torch.cat([best, distance], 1)
                best.copy_(both.topk(neighbours, largest=False).values)
        best += rows.square().sum(1, keepdim=True)
    return found.clamp_(min=0.0)


def mean_distance(square: Tensor) -> Tensor:
    """Return the mean distance to those neighbours that are there, (…).

    :param square: squared distances (…, k), infinity where there is none.
    """
    there = square.isfinite()
    distance = torch.where(there, square, 0.0).sqrt()
    return distance.sum(-1) / there.sum(-1)
