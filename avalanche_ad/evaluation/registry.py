"""Metrics by name: the package's own, those of other packages, or any by its path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from avalanche_ad.errors import RecipeError
from avalanche_ad.evaluation.anomaly_metric import AnomalyMetric
from avalanche_ad.registry import Registry

__all__ = ["DEFAULT_METRICS", "METRICS", "ORACLE", "find_metrics", "metric_names"]

METRICS: Registry[AnomalyMetric] = Registry(
    "metric",
    "avalanche_ad.evaluation.anomaly_metric.AnomalyMetric",
    "avalanche_ad.evaluation.measures",
)
DEFAULT_METRICS = (
    *("image_auroc", "image_ap", "image_f1max"),
    *("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"),
    "category_accuracy",
)
"""What is measured in every run, in the order of its results."""
ORACLE = "_oracle"
"""Suffix of a metric of scores that were given the true category."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LEVELS = ("image", "pixel", "category")
_TAKEN = {  # by what stands beside metrics in histories and tables
    *("step", "training_experience", "stream", "experience", "category"),
    *("image_threshold", "pixel_threshold", "strategy", "seeds"),
}
_SUFFIXES = (ORACLE, "_forgetting", "_bwt")


def find_metrics(
    metrics: Iterable[str | AnomalyMetric], folder: Path | None = None
) -> tuple[AnomalyMetric, ...]:
    """Return metrics, those that are named made without arguments.

    :param metrics: names, dotted paths of classes, or metrics.
    :param folder: where modules are looked for that are found nowhere else: that of
        the recipe's file.
    :raises RecipeError: when one is not there, cannot be made, or has no name of its
        own.

    >>> [metric.name for metric in find_metrics(["aupro"])]
    ['aupro']
    """
    found: dict[str, AnomalyMetric] = {}
    for one in metrics:
        metric = one if isinstance(one, AnomalyMetric) else _made(one, folder)
        told = f"metric {type(metric).__module__}.{type(metric).__name__}"
        name, level = metric.name, metric.level
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RecipeError(
                f"{told}: expected a name of lower-case letters, digits and "
                f"underscores, such as 'image_auroc', got {name!r}"
            )
        if name in _TAKEN or name.endswith(_SUFFIXES):
            raise RecipeError(
                f"{told}: the name {name!r} means something else in results: choose "
                f"another, which does not end in {' or '.join(_SUFFIXES)}"
            )
        if level not in _LEVELS:
            raise RecipeError(
                f"{told}: expected a level of {', '.join(_LEVELS)}, got {level!r}"
            )
        if name in found:
            raise RecipeError(
                f"{told}: there is a metric {name!r} already: name each once"
            )
        found[name] = metric
    return tuple(found.values())


def _made(name: str, folder: Path | None) -> AnomalyMetric:
    made = METRICS.find(name, folder)
    try:
        return made()
    except Exception as error:  # whatever a class of the user's own does
        raise RecipeError(
            f"metric {name!r} cannot be made without arguments "
            f"({type(error).__name__}: {error}): give them defaults"
        ) from error


def metric_names(
    metrics: Iterable[str | AnomalyMetric] = DEFAULT_METRICS, *, oracle: bool = True
) -> tuple[str, ...]:
    """List every metric that is reported, those of the oracle last.

    :param metrics: as :func:`find_metrics` takes them.
    :param oracle: whether scores of the known category are measured too.

    >>> metric_names(["aupro", "category_accuracy"])
    ('aupro', 'category_accuracy', 'aupro_oracle')
    """
    found = find_metrics(metrics)
    scored = [one.name for one in found if one.level != "category"] if oracle else []
    return (*(one.name for one in found), *(name + ORACLE for name in scored))
