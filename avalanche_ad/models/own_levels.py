"""Densities of the category each image is scored as, evaluated where asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["OwnLevels", "affinities", "spread_positions"]

_SIDE = 6
"""Positions a side that tell most images' category."""
_STANDARD_ERRORS = 3.0


def spread_positions(height: int, width: int, side: int = _SIDE) -> Tensor:
    """Return positions spread evenly over a grid, ascending.

    Row i of n = min(height, side) is ⌊(i + ½) height / n⌋, columns likewise; a grid of
    at most ``side`` a side is taken whole.

    :param height: rows of the grid.
    :param width: its columns.
    :param side: rows and columns wanted.
    :return: indices (P,) into the height · width positions.

    >>> spread_positions(4, 4, side=2).tolist()
    [5, 7, 13, 15]
    """
    rows, columns = (
        ((2 * torch.arange(count) + 1) * size).div(2 * count, rounding_mode="floor")
        for size, count in ((height, min(height, side)), (width, min(width, side)))
    )
    return (rows[:, None] * width + columns).flatten()


def affinities(
    levels: Sequence[Tensor], of_all: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Return affinities to categories by a few positions, by all where those do not do.

    Where the gap between an image's nearest category and another is less than three
    standard errors of its mean over the positions, both are taken of all positions.
    Other categories keep their gaps to the nearest: a mean of a few positions and one
    of all, of which some are at the border, do not compare.

    :param levels: affinities of a few positions, (N, P_l, C) per level.
    :param of_all: given rows (M,) and a column of C, returns the affinities by all
        positions, (M,).
    :return: mean_l mean_p, (N, C).

    >>> few = torch.tensor([[[0.0, 0.1], [0.2, 0.0]]])
    >>> affinities([few], lambda rows, column: torch.full((1,), float(column)))
    tensor([[0., 1.]])
    """
    output = torch.stack([level.mean(1) for level in levels]).mean(0)
    if output.shape[1] < 2:
        return output
    best = output.argmax(1)
    gap = output.gather(1, best[:, None]) - output
    square = torch.zeros_like(output)
    for level in levels:
        own = level.gather(2, best[:, None, None].expand(-1, level.shape[1], 1))
        square += (own - level).var(1, correction=0) / level.shape[1]
    near = gap < _STANDARD_ERRORS * square.sqrt() / len(levels)
    near = near.scatter(1, best[:, None], True)
    near &= near.sum(1, keepdim=True) > 1
    few = output.clone()
    for column in near.any(0).nonzero().flatten().tolist():
        rows = near[:, column].nonzero().flatten()
        output[rows, column] = of_all(rows, column).to(output)
    moved = (output - few).gather(1, best[:, None])  # 0 where there is no doubt
    return torch.where(near, output, output + moved)


class OwnLevels:
    """What a minibatch's positions say, each image's under one category.

    Evaluated with one call a category, and kept: images that are asked for as the same
    category again are not evaluated anew. What has a graph is not kept.

    >>> calls = []
    >>> def evaluate(rows, category):
    ...     calls.append((rows.tolist(), category))
    ...     return [torch.full((len(rows), 2, 2), float(category))]
    >>> own = OwnLevels()
    >>> own.of(torch.tensor([3, 0, 3]), evaluate)[0][:, 0, 0].tolist()
    [3.0, 0.0, 3.0]
    >>> own.of(torch.tensor([3, 3, 3]), evaluate)[0][:, 0, 0].tolist()
    [3.0, 3.0, 3.0]
    >>> calls
    [([1], 0), ([0, 2], 3), ([1], 3)]
    """

    def __init__(self) -> None:
        self._category: Tensor | None = None
        self._levels: list[Tensor] = []

    def of(
        self, category: Tensor, evaluate: Callable[[Tensor, int], list[Tensor]]
    ) -> list[Tensor]:
        """Return one (N, H, W) per level.

        :param category: index of the category of each image, (N,).
        :param evaluate: given rows (M,) of the minibatch and their category, returns
            one (M, H, W) per level; the same at every call.
        """
        changed = torch.ones_like(category, dtype=torch.bool)
        if self._category is not None:
            changed = category != self._category
        levels = self._levels
        for index in sorted(set(category[changed].tolist())):
            rows = (changed & (category == index)).nonzero().flatten()
            found = evaluate(rows, index)
            levels = levels or [
                part.new_zeros(len(category), *part.shape[1:]) for part in found
            ]
            levels = [
                level.index_copy(0, rows, part)
                for level, part in zip(levels, found, strict=True)
            ]
        if not any(level.requires_grad for level in levels):
            self._category, self._levels = category.clone(), levels
        return list(levels)
