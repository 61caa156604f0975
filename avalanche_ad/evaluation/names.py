"""Names of the metrics, as results, recipes and tables write them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CATEGORY_ACCURACY",
    "IMAGE_METRICS",
    "METRICS",
    "ORACLE",
    "PIXEL_METRICS",
    "metric_names",
]

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")
CATEGORY_ACCURACY = "category_accuracy"
METRICS = (*IMAGE_METRICS, *PIXEL_METRICS, CATEGORY_ACCURACY)
ORACLE = "_oracle"
"""Suffix of a metric of scores that were given the true category."""


def metric_names(
    metrics: Sequence[str] = METRICS, *, oracle: bool = True
) -> tuple[str, ...]:
    """List every metric that is reported, those of the oracle last.

    :param metrics: a selection of :data:`METRICS`.
    :param oracle: whether scores of the known category are measured too.
    """
    known = [name for name in metrics if name != CATEGORY_ACCURACY] if oracle else []
    return (*metrics, *(name + ORACLE for name in known))
