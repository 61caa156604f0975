"""Tensors with a row for each category: they grow, and a row may be missing.

:class:`CategoryTable` holds several that grow together. The functions are for a lone
tensor that a module holds besides, whose rows are NaN where a category has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from avalanche_ad.models.loading import LoadsWhole

__all__ = ["CategoryTable", "known_rows", "own_or_borrowed", "with_rows"]


class CategoryTable(LoadsWhole):
    """Tables with a row a category, of one length, that grow by their first dimension.

    A table is a buffer or a parameter. The one named ``known`` (C,) says which
    categories have rows; without it those have that hold no NaN. A state of any number
    of categories loads, wherever the module lies, see :class:`LoadsWhole`.

    :param known: whether there is a table ``known``.

    >>> table = CategoryTable()
    >>> table.add_table("scale", 2, blank=1.0)
    >>> table.set_rows(2, scale=torch.tensor([3.0, 4.0]))
    >>> table.scale.tolist(), table.categories.tolist()
    ([[1.0, 1.0], [1.0, 1.0], [3.0, 4.0]], [2])
    """

    known: Tensor

    def __init__(self, known: bool = True) -> None:
        super().__init__()
        self._blank: dict[str, float] = {}
        if known:
            self.add_table("known", dtype=torch.bool)

    def add_table(
        self,
        name: str,
        *shape: int,
        blank: float = 0.0,
        dtype: torch.dtype | None = None,
        trained: bool = False,
    ) -> None:
        """Make a table of that name, as long as the others are.

        :param name: the attribute, and the key in a state.
        :param shape: of a row.
        :param blank: value of a row that a category starts with.
        :param dtype: torch's default by default.
        :param trained: whether it is a parameter.
        """
        table = torch.zeros(0, *shape, dtype=dtype)
        rows = self.num_categories
        if trained:
            self.register_parameter(name, nn.Parameter(table))
        else:
            self.register_buffer(name, table)
        self._blank[name] = blank
        self._grow(name, rows)

    @property
    def category_tables(self) -> tuple[str, ...]:
        """Names of the tables."""
        return tuple(self._blank)

    @property
    def num_categories(self) -> int:
        """Categories there is room for, known or not."""
        return len(getattr(self, next(iter(self._blank)))) if self._blank else 0

    @property
    def categories(self) -> Tensor:
        """Indices of the categories that have rows, ascending."""
        if "known" in self._blank:
            return self.known.nonzero().flatten()
        has = [_complete(getattr(self, name)) for name in self._blank]
        return torch.stack(has).all(0).nonzero().flatten()

    def blank_rows(self, name: str, categories: Sequence[int]) -> Tensor:
        """Return the rows that categories start with in a table, (C_new, …).

        An override may make each of its category's index.

        :param name: of the table.
        :param categories: indices.
        """
        table: Tensor = getattr(self, name)
        return table.new_full((len(categories), *table.shape[1:]), self._blank[name])

    @torch.no_grad()
    def resize(self, num_categories: int) -> None:
        """Make room for categories that have nothing yet; rows that are there stay.

        :param num_categories: C; where there is more room it stays.
        """
        for name in self._blank:
            self._grow(name, num_categories)

    def _grow(self, name: str, count: int) -> None:
        old = getattr(self, name)
        if count <= len(old):
            return
        rows = self.blank_rows(name, range(len(old), count)).to(old)
        new = torch.cat([old.detach(), rows])
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(self, name, new)

    @torch.no_grad()
    def set_rows(self, category: int, **rows: Tensor) -> None:
        """Give a category rows, which then has some, making room for it.

        :param category: its index.
        :param rows: (…) by the name of the table; the others keep theirs.
        """
        self.resize(category + 1)
        for name, row in rows.items():
            table = getattr(self, name)
            table[category] = row.to(table)
        if "known" in self._blank:
            self.known[category] = True


def with_rows(table: Tensor, rows: Mapping[int, Tensor], count: int = 0) -> Tensor:
    """Return a copy with some rows replaced, as many more as that takes, of NaN.

    :param table: (C, …).
    :param rows: (…) of each category index.
    :param count: how many rows the result has at least.

    >>> with_rows(torch.zeros(1, 2), {2: torch.ones(2)}).tolist()
    [[0.0, 0.0], [nan, nan], [1.0, 1.0]]
    """
    missing = max(0, count - len(table), *(index + 1 - len(table) for index in rows))
    found = torch.cat([table, table.new_full((missing, *table.shape[1:]), torch.nan)])
    for index, row in rows.items():
        found[index] = row
    return found


def known_rows(table: Tensor) -> Tensor:
    """Return the rows without NaN, (C_known, …).

    :param table: (C, …).
    """
    return table[_complete(table)]


def own_or_borrowed(table: Tensor, category: Tensor, borrowed: Tensor) -> Tensor:
    """Return the row of each image's category, or the borrowed one where it has none.

    :param table: (C, …), C at least 1.
    :param category: index of a category for each image, (N,); it may be C or more.
    :param borrowed: (…).
    :return: (N, …).

    >>> table = torch.tensor([[1.0], [torch.nan]])
    >>> own_or_borrowed(table, torch.tensor([0, 1, 7]), torch.tensor([9.0])).tolist()
    [[1.0], [9.0], [9.0]]
    """
    rows = table[category.clamp(max=len(table) - 1)]
    has = (category < len(table)) & _complete(rows)
    return torch.where(has.view(-1, *(1,) * borrowed.dim()), rows, borrowed)


def _complete(table: Tensor) -> Tensor:
    """Return which rows hold no NaN, (C,)."""
    return ~table.isnan().unsqueeze(-1).flatten(1).any(1)
