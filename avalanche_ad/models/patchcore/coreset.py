"""Greedy choice of vectors that cover all others: k-centre."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["greedy_order", "projected"]


def projected(x: Tensor, dimensions: int, generator: torch.Generator) -> Tensor:
    """Return a random projection, which keeps distances but for a tenth or so.

    Source: Johnson & Lindenstrauss, 1984, as in Roth et al., CVPR 2022, Sec. 3.2.

    :param x: (P, D).
    :param dimensions: d; where D is no more, ``x`` is returned as it is.
    :param generator: draws the directions.
    :return: (P, d).
    """
    if x.shape[1] <= dimensions:
        return x
    directions = torch.randn(x.shape[1], dimensions, generator=generator).to(x)
    found: Tensor = x @ (directions / dimensions**0.5)
    return found


def greedy_order(x: Tensor, count: int) -> Tensor:
    """Return rows in the order in which greedy k-centre takes them.

    The first is the one nearest to the mean; each next one is that which lies farthest
    from all taken before. Its covering radius is at most twice the least possible. The
    first m of n taken are what is taken for m: a coreset is made smaller by a cut.

    Source: Gonzalez, Theor. Comput. Sci. 1985; Roth et al., CVPR 2022, Alg. 1.

    :param x: (P, D).
    :param count: how many are taken, at most P.
    :return: row indices (count,), all different.

    >>> greedy_order(torch.tensor([[0.0], [1.0], [9.0], [4.0]]), 3)
    tensor([3, 2, 0])
    """
    x = x - x.mean(0)
    square = x.square().sum(1)
    order = torch.empty(count, dtype=torch.long, device=x.device)
    nearest = torch.full_like(square, torch.inf)
    row = square.argmin() if len(x) else order
    for step in range(count):
        order[step] = row
        distance = torch.addmv(square + square[row], x, x[row], alpha=-2.0)
        torch.minimum(nearest, distance, out=nearest)
        nearest[row] = -torch.inf  # of equal vectors, too, each is taken once
        row = nearest.argmax()
    return order
