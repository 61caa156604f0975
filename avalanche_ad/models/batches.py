"""Minibatches of an experience, put together by category."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["by_category"]


def by_category(
    batches: Iterable[tuple[Tensor, Tensor]], limit: int | None = None
) -> dict[int, Tensor]:
    """Return the images of each category, in their order.

    :param batches: minibatches (x (N, …), category indices (N,)).
    :param limit: the first so many images of each category; all of them by default.
    :return: category index → (N, …).

    >>> batch = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1, 0, 1])
    >>> by_category([batch])[1].flatten().tolist()
    [1.0, 3.0]
    """
    found: dict[int, list[Tensor]] = {}
    for x, y in batches:
        for category in sorted(set(y.tolist())):
            parts = found.setdefault(category, [])
            rows = (y == category).nonzero().flatten()
            if limit is not None:
                rows = rows[: limit - sum(map(len, parts))]
            parts.append(x[rows])
    return {category: torch.cat(found[category]) for category in sorted(found)}
