"""The values of metrics of one category, all of a level off one curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy.typing as npt
from torch import Tensor

from avalanche_ad.datasets.regions import Region
from avalanche_ad.datasets.sample import UNKNOWN
from avalanche_ad.errors import AvalancheADError
from avalanche_ad.evaluation.anomaly_metric import (
    AnomalyMetric,
    CurveMetric,
    RegionMetric,
)
from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = ["computed", "known_masks", "level_values"]


def known_masks(masks: Tensor) -> Tensor:
    """Say of which images the masks are known.

    :param masks: (N, H, W), of test items.
    :return: (N,) boolean, false where all pixels are ``UNKNOWN``.

    >>> import torch
    >>> known_masks(torch.tensor([[[0, 1]], [[255, 255]]], dtype=torch.uint8))
    tensor([ True, False])
    """
    return (masks != UNKNOWN).flatten(1).any(1)


def level_values(
    metrics: Sequence[AnomalyMetric],
    level: Literal["image", "pixel"],
    scores: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    regions: Sequence[Sequence[Region]] | None = None,
) -> dict[str, float | None]:
    """Compute the metrics of one level, and the threshold at F1-max.

    :param metrics: those of other levels are passed over.
    :param level: of the scores.
    :param scores: (N,) of images or (N, H, W) of pixels, higher is more anomalous.
    :param labels: of the same shape, true where anomalous.
    :param regions: of every image, its defects, if the data set knows them.
    :return: by name, and ``LEVEL_threshold``; nothing without a metric of the level.
    :raises AvalancheADError: when a score is not finite or a metric fails.

    >>> import numpy as np
    >>> from avalanche_ad.evaluation.registry import find_metrics
    >>> scores, labels = np.array([0.1, 0.8]), np.array([False, True])
    >>> level_values(find_metrics(["image_auroc"]), "image", scores, labels)
    {'image_threshold': 0.8, 'image_auroc': 1.0}
    """
    own = [metric for metric in metrics if metric.level == level]
    if not own:
        return {}
    curve = DetectionCurve(scores, labels)
    found = {f"{level}_threshold": curve.threshold}
    for metric in own:
        if metric.needs_both and curve.missing:
            found[metric.name] = None
        elif isinstance(metric, CurveMetric):
            found[metric.name] = _checked(metric, metric.of_curve, curve)
        elif isinstance(metric, RegionMetric) and regions is not None:
            found[metric.name] = _checked(
                metric, metric.of_regions, curve.scores, regions
            )
        else:
            found[metric.name] = computed(metric, curve.scores, curve.labels)
    return found


def computed(
    metric: AnomalyMetric, scores: npt.NDArray[Any], labels: npt.NDArray[Any]
) -> float | None:
    """Return what a metric computes, if it is one number.

    :raises AvalancheADError: when it is none, or computing it fails.
    """
    return _checked(metric, metric.compute, scores, labels)


def _checked(
    metric: AnomalyMetric, compute: Callable[..., Any], *of: object
) -> float | None:
    try:
        value = compute(*of)
        number = None if value is None else float(value)
    except AvalancheADError:
        raise
    except Exception as error:  # whatever a class of the user's own does
        raise AvalancheADError(
            f"metric {metric.name!r} failed: {type(error).__name__}: {error}"
        ) from error
    if number is not None and not math.isfinite(number):
        raise AvalancheADError(
            f"metric {metric.name!r}: expected a finite number, or None where it is "
            f"undefined, got {number}"
        )
    return number
