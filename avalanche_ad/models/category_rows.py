"""Tables with a row for each category, NaN where a category never had an image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["known_rows", "own_or_borrowed", "with_rows"]


def with_rows(table: Tensor, rows: Mapping[int, Tensor], count: int = 0) -> Tensor:
    """Return a table with some rows replaced, as many more as that takes.

    :param table: (C, …).
    :param rows: (…) of each category index.
    :param count: how many rows the result has at least.
    """
    grown = table.new_full(
        (max(len(table), count, *(index + 1 for index in rows)), *table.shape[1:]),
        torch.nan,
    )
    grown[: len(table)] = table
    for index, row in rows.items():
        grown[index] = row
    return grown


def known_rows(table: Tensor) -> Tensor:
    """Return the rows without NaN, (C_known, …).

    :param table: (C, …).
    """
    return table[~table.flatten(1).isnan().any(1)]


def own_or_borrowed(table: Tensor, category: Tensor, borrowed: Tensor) -> Tensor:
    """Return the row of each image's category, or the borrowed one where it has none.

    :param table: (C, …), C at least 1.
    :param category: index of a category for each image, (N,); it may be C or more.
    :param borrowed: (…).
    :return: (N, …).
    """
    rows = table[category.clamp(max=len(table) - 1)]
    has = (category < len(table)) & ~rows.flatten(1).isnan().any(1)
    return torch.where(has.view(-1, *(1,) * borrowed.dim()), rows, borrowed)
