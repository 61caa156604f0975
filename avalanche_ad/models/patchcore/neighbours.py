"""Exact nearest neighbours: by blocks of one matrix product each, or by faiss."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from avalanche_ad.errors import RecipeError

__all__ = ["Search", "check_search", "mean_distance", "nearest_squares"]

Search = Literal["torch", "faiss"]

_QUERIES, _VECTORS = 512, 2048  # a block of products stays in the cache


def check_search(search: str) -> None:
    """Refuse faiss where it is not installed.

    :raises RecipeError: when it is not.
    """
    if search == "faiss" and find_spec("faiss") is None:
        raise RecipeError(
            "model.search = 'faiss' needs a package that is not installed: pip install "
            "'avalanche_ad[faiss]', or leave search = 'torch', which finds the same"
        )


def nearest_squares(
    x: Tensor, bank: Tensor, neighbours: int = 1, search: Search = "torch"
) -> Tensor:
    """Return squared Euclidean distances to the nearest vectors, ascending.

    ‖x − b‖² = ‖x‖² + ‖b‖² − 2 x·b, about the bank's mean, so that a common offset costs
    no digits.

    :param x: (P, D).
    :param bank: (M, D), of any floating type.
    :param neighbours: k.
    :param search: ``"faiss"``, on the CPU, finds the same to rounding.
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
    if search == "faiss":
        return _by_faiss(x - centre, bank - centre, neighbours)
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


def _by_faiss(x: Tensor, bank: Tensor, neighbours: int) -> Tensor:
    import faiss

    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.cpu().numpy())
    found, row = index.search(x.cpu().numpy(), neighbours)
    found[row < 0] = float("inf")
    return torch.from_numpy(found).to(x).clamp_(min=0.0)


def mean_distance(square: Tensor) -> Tensor:
    """Return the mean distance to those neighbours that are there, (…).

    :param square: squared distances (…, k), infinity where there is none.
    """
    there = square.isfinite()
    distance = torch.where(there, square, 0.0).sqrt()
    return distance.sum(-1) / there.sum(-1)
