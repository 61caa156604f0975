"""Which categories a mean is over, where that is not all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avalanche_ad.reporting.columns import AUROCS

__all__ = ["coverage_note"]


def coverage_note(results: Sequence[Mapping[str, Any]]) -> str:
    """Say over how many categories means are; nothing where it is all of them.

    A category without test images of both kinds has no AUROC, one without masks none of
    pixels.

    :param results: contents of ``results.json`` of runs on one stream.

    >>> values = {"image_auroc": {"a": 0.9, "b": 0.8}, "pixel_auroc": {"a": 0.7}}
    >>> coverage_note([{"categories": [["a"], ["b"]], "per_category": values}])
    'Means of pixel metrics are over 1 of 2 categories, without b.'
    """
    names = [name for task in results[0]["categories"] for name in task]
    left_out: dict[tuple[str, ...], list[str]] = {}
    for metric in AUROCS:
        found = [run.get("per_category", {}).get(metric) for run in results]
        known = [one for one in found if one is not None]
        without = tuple(
            name for name in names if all(one.get(name) is None for one in known)
        )
        if known and without:
            left_out.setdefault(without, []).append(metric.split("_")[0])
    parts = []
    for without, levels in left_out.items():
        what = f"{' and '.join(levels)} metrics"
        if len(without) == len(names):
            parts.append(f"No category has {what}.")
        else:
            parts.append(
                f"Means of {what} are over {len(names) - len(without)} of {len(names)} "
                f"categories, without {', '.join(without)}."
            )
    return " ".join(parts)
