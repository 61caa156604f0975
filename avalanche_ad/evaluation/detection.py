"""Exact anomaly-detection measures as pure functions of arrays.

Scores are sorted once and every measure is read off the same counts, taken at every
*distinct* score of an anomalous sample; in between, only the number of false positives
changes, so no threshold is left out. Samples that tie are above or below a threshold
together, so no measure depends on their order. Higher scores are more anomalous, and a
ranking below chance is reported as it is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from avalanche_ad.errors import AvalancheADError
from avalanche_ad.evaluation.overlap_curve import area_to_limit, check_limit

__all__ = [
    "BinaryMetrics",
    "DetectionCurve",
    "PixelMetrics",
    "UndefinedMetricWarning",
    "aupro",
    "auroc",
    "average_precision",
    "binary_metrics",
    "f1_max",
    "fpr_at_tpr",
    "missing_class",
    "pixel_metrics",
]

# One plane of neighbours: pixels touching by an edge or a corner are one region, images
# of a stack are never joined.
_EIGHT_CONNECTED = np.zeros((3, 3, 3), dtype=np.bool_)
_EIGHT_CONNECTED[1] = True


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

    >>> mask = np.eye(4)[None] > 0
    >>> pixel_metrics(mask * 0.5, mask).aupro
    1.0
    """

    aupro: float | None


class _Counts(NamedTuple):
    """Counts at every distinct score of an anomalous sample, from high to low.

    ``order`` sorts the anomalous samples by falling score and ``last`` is the position
    there of the last one of each score; ``true`` and ``false`` count the anomalous and
    normal samples at or above the score, ``above`` the normal ones strictly above.
    """

    scores: npt.NDArray[np.floating]
    order: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    true: npt.NDArray[np.int64]
    false: npt.NDArray[np.int64]
    above: npt.NDArray[np.int64]
    negatives: int


class DetectionCurve:
    """All measures of one set of scores; they are sorted once, when first needed.

    With TP and FP counted at every distinct score, P and N the totals: AUROC is the
    trapezoid area of TP/P over FP/N, AP = sum of (change of recall) * precision without
    interpolation, and F1-max the maximum of 2 TP / (TP + FP + P). All equal
    scikit-learn's ``roc_auc_score``, ``average_precision_score`` and the maximum over
    ``precision_recall_curve``. Every measure is ``None`` when one class is missing.

    :param scores: any shape, higher is more anomalous.
    :param labels: same shape, true where anomalous.
    :raises AvalancheADError: when the shapes differ or a score is not finite.

    >>> curve = DetectionCurve([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    >>> curve.auroc, curve.f1max, curve.threshold
    (0.75, 0.8, 0.35)
    """

    scores: npt.NDArray[np.floating]
    labels: npt.NDArray[np.bool_]
    missing: str | None
    """The class there is no sample of, ``None`` when both are there."""

    def __init__(self, scores: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        self.scores, self.labels = _checked(scores, labels)
        self.missing = missing_class(self.labels)

    @cached_property
    def _counts(self) -> _Counts:
        scores, anomalous = self.scores.ravel(), self.labels.ravel()
        found = scores[anomalous]
        order = np.argsort(found)[::-1]
        found = found[order]
        last = np.append(np.flatnonzero(found[1:] != found[:-1]), found.size - 1)
        thresholds = found[last]
        normal = np.sort(scores[~anomalous])
        return _Counts(
            scores=thresholds,
            order=order,
            last=last,
            true=last + 1,
            false=normal.size - np.searchsorted(normal, thresholds, side="left"),
            above=normal.size - np.searchsorted(normal, thresholds, side="right"),
            negatives=normal.size,
        )

    @cached_property
    def _recalled(self) -> npt.NDArray[np.float64]:
        """How much the recall grows at every distinct score."""
        true = self._counts.true
        return np.diff(true.astype(np.float64), prepend=0.0) / float(true[-1])

    @cached_property
    def auroc(self) -> float | None:
        """Area under the ROC curve."""
        if self.missing:
            return None
        counts = self._counts
        outranked = 1 - (counts.false + counts.above) / (2 * counts.negatives)
        return float(np.sum(self._recalled * outranked))

    @cached_property
    def average_precision(self) -> float | None:
        """Area under the precision-recall curve, without interpolation."""
        if self.missing:
            return None
        true = self._counts.true.astype(np.float64)
        return float(np.sum(self._recalled * true / (true + self._counts.false)))

    @cached_property
    def _best(self) -> tuple[float, float]:
        """The highest F1 and the score at which it is reached."""
        counts = self._counts
        f1 = 2 * counts.true / (counts.true + counts.false + counts.true[-1])
        best = int(np.argmax(f1))
        return float(f1[best]), float(counts.scores[best])

    @property
    def f1max(self) -> float | None:
        """Highest F1 over all thresholds."""
        return None if self.missing else self._best[0]

    @property
    def threshold(self) -> float | None:
        """The score at which F1 is highest; at or above it is anomalous."""
        return None if self.missing else self._best[1]

    def fpr_at_tpr(self, tpr: float = 0.95) -> float | None:
        """Share of normal samples at or above the score that ``tpr`` reaches.

        The threshold is the highest score at which at least that share of the anomalous
        samples is at or above it.

        :param tpr: in (0, 1].
        """
        if self.missing:
            return None
        counts = self._counts
        wanted = np.searchsorted(counts.true, np.ceil(tpr * counts.true[-1] - 1e-9))
        return float(counts.false[wanted] / counts.negatives)

    def aupro(self, fpr_limit: float = 0.3) -> float | None:
        """Area under the per-region-overlap curve, see :func:`aupro`.

        :param fpr_limit: where the integral ends, in (0, 1].
        :raises AvalancheADError: when scores and labels are not (N, H, W) or the limit
            is out of range.
        """
        self._check_maps(fpr_limit)
        if self.missing:
            return None
        counts = self._counts
        masks = self.labels[self.labels.any(axis=(1, 2))]
        regions, count = ndimage.label(masks, structure=_EIGHT_CONNECTED)
        region = regions[masks] - 1
        # A pixel of region r adds 1 / (pixels of r * number of regions) to the mean
        # overlap
        share = 1 / (np.bincount(region, minlength=count) * count)
        overlap = np.cumsum(share[region[counts.order]])[counts.last]
        return area_to_limit(
            counts.above, counts.false, counts.negatives, overlap, fpr_limit
        )

    def _check_maps(self, fpr_limit: float) -> None:
        if self.labels.ndim != 3:
            raise AvalancheADError(
                "expected score maps and masks of shape (N, H, W), got "
                f"{self.labels.shape}"
            )
        check_limit(fpr_limit)


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


def missing_class(labels: npt.ArrayLike) -> str | None:
    """Name the class that is missing, without which no measure is defined.

    :param labels: any shape, true where anomalous.
    :return: ``"anomalous"``, ``"normal"``, or ``None`` when both are there.

    >>> missing_class([1, 1])
    'normal'
    """
    anomalous = np.asarray(labels)
    if not anomalous.any():
        return "anomalous"
    return "normal" if anomalous.all() else None


def _warn_undefined(measures: str, curve: DetectionCurve, unit: str) -> None:
    if curve.missing:
        warnings.warn(
            f"{measures} undefined: no {curve.missing} {unit}; the value is None",
            UndefinedMetricWarning,
            stacklevel=3,
        )


def _checked(
    scores: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """Return both as arrays, keeping the precision of floating-point scores."""
    score, label = np.asarray(scores), np.asarray(labels)
    if score.shape != label.shape:
        raise AvalancheADError(
            f"expected scores and labels of one shape, got {score.shape} and "
            f"{label.shape}"
        )
    if label.dtype != np.bool_:
        label = label.astype(np.bool_)
    return check_scores(score), label


def check_scores(scores: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Return scores as an array of floating point, their precision kept.

    :raises AvalancheADError: when one is not finite.
    """
    score = np.asarray(scores)
    if not np.issubdtype(score.dtype, np.floating):
        score = score.astype(np.float64)
    if score.dtype == np.float16:
        score = score.astype(np.float32)  # sorted far faster, the same order
    broken = score.size - int(np.count_nonzero(np.isfinite(score)))
    if broken:
        raise AvalancheADError(
            f"expected finite scores, got {broken} of {score.size} that are NaN or "
            "infinite; look for a diverged model or an empty mixture component"
        )
    return score
