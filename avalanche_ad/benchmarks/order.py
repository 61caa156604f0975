"""Which categories arrive in which experience."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from avalanche_ad.errors import DatasetError, counted

__all__ = ["split_categories"]


def split_categories(
    categories: Sequence[str],
    *,
    n_experiences: int | None = None,
    classes_per_experience: int | Sequence[int] | None = None,
    experiences: Sequence[Sequence[str]] | None = None,
    class_order: Sequence[str] | None = None,
    seed: int | None = None,
) -> list[list[str]]:
    """Distribute categories over experiences; none is lost, none comes twice.

    Exactly one of ``n_experiences`` (sizes as equal as they can be, the larger ones
    first), ``classes_per_experience`` (one size for all, the last experience takes
    what is left; or a list of sizes) and ``experiences`` (the names themselves) says
    how to split.

    A ``seed`` shuffles the whole order, whatever gave it: the data set, ``class_order``
    or ``experiences``. The sizes of the experiences stay, who is in them does not: a
    base group of ten named categories becomes one of ten others.

    :param categories: the data set's categories in its own order.
    :param n_experiences: number of experiences.
    :param classes_per_experience: categories per experience.
    :param experiences: the categories of each experience by name.
    :param class_order: names in order of arrival; a subset leaves the others out. The
        data set's order by default.
    :param seed: shuffle the order by this seed.
    :return: names per experience.
    :raises DatasetError: when a name is unknown or repeated or the sizes do not fit.
    """
    ways = [n_experiences, classes_per_experience, experiences]
    if sum(way is not None for way in ways) != 1:
        raise DatasetError(
            "expected exactly one of n_experiences, classes_per_experience and "
            "experiences to say how categories are split"
        )
    if experiences is not None:
        if class_order is not None:
            raise DatasetError(
                "experiences already names the order: leave class_order out"
            )
        if not experiences or not all(experiences):
            raise DatasetError("experiences: expected at least one category in each")
        class_order = [name for names in experiences for name in names]
    order = list(categories if class_order is None else class_order)
    _check_names(order, categories)
    if seed is not None:
        random.Random(seed).shuffle(order)

    if experiences is not None:
        sizes = [len(names) for names in experiences]
    elif n_experiences is not None:
        if not 1 <= n_experiences <= len(order):
            raise DatasetError(
                f"n_experiences: expected 1 to {len(order)} for "
                f"{counted(len(order), 'category')}, got {n_experiences}"
            )
        base, extra = divmod(len(order), n_experiences)
        sizes = [base + (index < extra) for index in range(n_experiences)]
    elif isinstance(classes_per_experience, int):
        if classes_per_experience < 1:
            raise DatasetError(
                "classes_per_experience: expected at least 1, got "
                f"{classes_per_experience}"
            )
        full, rest = divmod(len(order), classes_per_experience)
        sizes = [classes_per_experience] * full + ([rest] if rest else [])
    else:
        sizes = list(classes_per_experience or [])
        if any(size < 1 for size in sizes) or sum(sizes) != len(order):
            raise DatasetError(
                f"classes_per_experience: expected positive sizes that add up to "
                f"{counted(len(order), 'category')}, got {sizes} (sum {sum(sizes)})"
            )
    names = iter(order)
    return [[next(names) for _ in range(size)] for size in sizes]


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise DatasetError(f"category {name!r} is named {count} times in the order")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise DatasetError(
                f"unknown category {name!r}{hint}; the data set has: {', '.join(known)}"
            )
