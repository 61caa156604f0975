"""Densities of the category each image is scored as, evaluated where asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["OwnLevels", "spread_positions"]

_SIDE = 8
"""Positions a side that tell an image's category as well as all of a finer grid do."""


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
        for index in category[changed].unique().tolist():
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
            self._category, self._levels = category, levels
        return list(levels)
