"""Exact anomaly-detection measures as pure functions of arrays.

They are exact at every distinct score, see
:class:`~avalanche_ad.evaluation.detection_curve.DetectionCurve`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy.typing as npt

from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = [
    "BinaryMetrics",
    "PixelMetrics",
    "UndefinedMetricWarning",
    "aupro",
    "auroc",
    "average_precision",
    "binary_metrics",
    "f1_max",
    "fpr_at_tpr",
    "pixel_metrics",
]


class UndefinedMetricWarning(UserWarning):
    """A measure has no value because one of the two classes is missing.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     print(auroc([0.1, 0.9], [0, 0]))
    None
    >>> print(caught[0].message)
    AUROC, AP and F1-max undefined: no anomalous samples; the value is None
    """


@dataclass(frozen=True, slots=True)
class BinaryMetrics:
    """How well scores separate anomalous from normal; ``None`` where undefined.

    :param auroc: area under the ROC curve.
    :param ap: average precision.
    :param f1max: highest F1 over all thresholds.
    :param threshold: the score at which F1 is highest; at or above it is anomalous.

    >>> binary_metrics([1.0, 2.0, 3.0], [0, 0, 1])
    BinaryMetrics(auroc=1.0, ap=1.0, f1max=1.0, threshold=3.0)
    """

    auroc: float | None
    ap: float | None
    f1max: float | None
    threshold: float | None


@dataclass(frozen=True, slots=True)
class PixelMetrics(BinaryMetrics):
    """The same over the pixels of score maps, and the region overlap.

    :param aupro: area under the per-region-overlap curve up to the limit.

    >>> pixel_metrics([[[0.1, 0.4], [0.5, 0.8]]], [[[0, 0], [1, 1]]]).aupro
    1.0
    """

    aupro: float | None


def binary_metrics(scores: npt.ArrayLike, labels: npt.ArrayLike) -> BinaryMetrics:
    """Compute AUROC, AP and F1-max from one sort, see :class:`DetectionCurve`.

    :param scores: any shape, higher is more anomalous.
    :param labels: same shape, true where anomalous.
    :return: the measures; all ``None``, with an :class:`UndefinedMetricWarning`, when
        one class is missing.
    :raises AvalancheADError: when the shapes differ or a score is not finite.

    >>> binary_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).auroc
    0.75
    """
    curve = DetectionCurve(scores, labels)
    _warn_undefined("AUROC, AP and F1-max", curve, "samples")
    return BinaryMetrics(
        curve.auroc, curve.average_precision, curve.f1max, curve.threshold
    )


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Area under the ROC curve; see :func:`binary_metrics`."""
    return binary_metrics(scores, labels).auroc


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Average precision; see :func:`binary_metrics`."""
    return binary_metrics(scores, labels).ap


def f1_max(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
    """Highest F1 over all thresholds; see :func:`binary_metrics`."""
    return binary_metrics(scores, labels).f1max


def fpr_at_tpr(
    scores: npt.ArrayLike, labels: npt.ArrayLike, tpr: float = 0.95
) -> float | None:
    """Return the share of normal samples at or above the score that ``tpr`` reaches.

    See :meth:`DetectionCurve.fpr_at_tpr`. ``None``, with a warning, when one class is
    missing.

    :param scores: any shape, higher is more anomalous.
    :param labels: same shape, true where anomalous.
    :param tpr: in (0, 1].

    >>> fpr_at_tpr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.5
    """
    curve = DetectionCurve(scores, labels)
    _warn_undefined("FPR", curve, "samples")
    return curve.fpr_at_tpr(tpr)


def pixel_metrics(
    score_maps: npt.ArrayLike, masks: npt.ArrayLike, fpr_limit: float = 0.3
) -> PixelMetrics:
    """Compute the pixel measures and AUPRO of score maps from one sort.

    Pixels of all images, normal ones included, are pooled.

    :param score_maps: (N, H, W), higher is more anomalous.
    :param masks: (N, H, W), true on defects.
    :param fpr_limit: where AUPRO's integral ends, in (0, 1].
    :return: the measures; all ``None``, with an :class:`UndefinedMetricWarning`, when
        there is no defective or no normal pixel.
    :raises AvalancheADError: when the shapes differ, a score is not finite or the limit
        is out of range.
    """
    curve = DetectionCurve(score_maps, masks)
    overlap = curve.aupro(fpr_limit)
    _warn_undefined("pixel AUROC, AP, F1-max and AUPRO", curve, "pixels")
    return PixelMetrics(
        curve.auroc, curve.average_precision, curve.f1max, curve.threshold, overlap
    )


def aupro(
    score_maps: npt.ArrayLike, masks: npt.ArrayLike, fpr_limit: float = 0.3
) -> float | None:
    """Area under the per-region-overlap curve.

    At a threshold, PRO is the mean over all connected defect regions of all images of
    the share of the region's pixels at or above it, and FPR the share of all normal
    pixels, those of normal images included. PRO over FPR is piecewise linear between
    distinct thresholds; its integral from 0 to the limit, divided by the limit, is
    returned. Regions are 8-connected, as in the evaluation code of MVTec AD (Bergmann
    et al., IJCV 2021, section 4.2).

    :param score_maps: (N, H, W), higher is more anomalous.
    :param masks: (N, H, W), true on defects.
    :param fpr_limit: where the integral ends, in (0, 1].
    :return: a value in [0, 1]; ``None``, with an :class:`UndefinedMetricWarning`, when
        there is no defective or no normal pixel.
    :raises AvalancheADError: when the shapes differ, a score is not finite or the limit
        is out of range.
    """
    curve = DetectionCurve(score_maps, masks)
    overlap = curve.aupro(fpr_limit)
    _warn_undefined("AUPRO", curve, "pixels")
    return overlap


def _warn_undefined(measures: str, curve: DetectionCurve, unit: str) -> None:
    if curve.missing:
        warnings.warn(
            f"{measures} undefined: no {curve.missing} {unit}; the value is None",
            UndefinedMetricWarning,
            stacklevel=3,
        )
