"""One table over another: a benchmark over its base, a strategy over a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avalanche_ad.recipes.model_options import DEFAULT_MODEL

__all__ = ["STREAM_KEYS", "over", "replaced"]

# A key of a stream that is given → keys of its base that go, since they say the same.
_REPLACES = {
    "n_experiences": ("classes_per_experience", "experiences"),
    "classes_per_experience": ("n_experiences", "experiences"),
    "experiences": (
        "n_experiences",
        "classes_per_experience",
        "categories",
        "class_order",
        "order_seed",
    ),
    "categories": ("class_order",),
    "class_order": ("categories", "order_seed"),
    # another data set has no use for names of this one's categories
    "dataset": (
        *("synthetic", "dataset_options", "data"),
        *("categories", "class_order", "experiences"),
    ),
}
STREAM_KEYS = {*_REPLACES, "order_seed", "blurry", "blurry_seed"}
"""What published numbers hold for: with another order they are of another stream."""


def replaced(stream: Mapping[str, Any], change: Mapping[str, Any]) -> set[str]:
    """Return the keys of a stream that go when others are put over it.

    >>> sorted(replaced({"n_experiences": 5}, {"classes_per_experience": 3}))
    ['experiences', 'n_experiences']
    """
    changed = {
        key
        for key, value in change.items()
        if key != "dataset" or value != stream.get(key)
    }
    return {old for key in changed for old in _REPLACES.get(key, ())}


def over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another put over it, key by key.

    A model of another type, and the options of another backbone, take the place of
    those there were.

    >>> over({"training": {"epochs": 4, "lr": 1e-3}}, {"training": {"epochs": 9}})
    {'training': {'epochs': 9, 'lr': 0.001}}
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if not (isinstance(value, dict) and isinstance(old, dict)):
            merged[key] = value
            continue
        kept = dict(old)
        before = old.get("type", DEFAULT_MODEL)
        if key == "model" and value.get("type", before) != before:
            kept = {}
        before = old.get("backbone")
        if key == "features" and value.get("backbone", before) != before:
            kept.pop("options", None)
        merged[key] = over(kept, value)
    return merged
