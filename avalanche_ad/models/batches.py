"""Minibatches of an experience, put together by category."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["by_category", "to_be_fitted"]


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


def to_be_fitted(
    found: Mapping[int, Tensor], known: Collection[int], brought: Mapping[int, int]
) -> dict[int, Tensor]:
    """Return the images of categories that are new, or of which there are more now.

    :param found: category index → the images of an experience (N, …).
    :param known: categories that have been fitted.
    :param brought: to how many images an experience brought; a category that none
        brought, but a state or a call by hand, is left as it is.

    >>> images = {0: torch.zeros(3, 1), 1: torch.zeros(5, 1), 2: torch.zeros(1, 1)}
    >>> [*to_be_fitted(images, known=[0, 1], brought={0: 3, 1: 4})]
    [1, 2]
    """
    return {
        category: x
        for category, x in found.items()
        if category not in known or len(x) > brought.get(category, len(x))
    }
