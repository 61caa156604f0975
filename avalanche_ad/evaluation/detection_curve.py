"""The counts of anomalous and normal samples that all measures are read off.

Scores are sorted once and every measure is read off the same counts, taken at every
*distinct* score of an anomalous sample; in between, only the number of false positives
changes, so no threshold is left out. Samples that tie are above or below a threshold
together, so no measure depends on their order. Higher scores are more anomalous, and a
ranking below chance is reported as it is.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from avalanche_ad.errors import AvalancheADError

__all__ = [
    "DetectionCurve",
    "area_to_limit",
    "check_limit",
    "check_scores",
    "missing_class",
]

# One plane of neighbours: pixels touching by an edge or a corner are one region, images
# of a stack are never joined.
_EIGHT_CONNECTED = np.zeros((3, 3, 3), dtype=np.bool_)
_EIGHT_CONNECTED[1] = True


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


def area_to_limit(
    above: npt.NDArray[np.integer],
    false: npt.NDArray[np.integer],
    negatives: int,
    overlap: npt.NDArray[np.floating],
    fpr_limit: float,
) -> float:
    """Integrate overlap over the false-positive rate up to a limit; divide by it.

    :param above: normal pixels strictly above each threshold, thresholds falling, (T,).
    :param false: normal pixels at or above it, (T,).
    :param negatives: all normal pixels.
    :param overlap: mean overlap at or above it, (T,).
    :param fpr_limit: in (0, 1].
    """
    # The curve runs level up to the normal pixels strictly above a threshold, then
    # in a straight line over those that tie with it.
    ends = np.column_stack((above, false)).ravel() / negatives
    x = np.concatenate(([0.0], ends, [1.0]))
    y = np.concatenate(([0.0, 0.0], np.repeat(overlap, 2)))
    inside = int(np.searchsorted(x, fpr_limit, side="right"))
    around = slice(inside - 1, inside + 1)
    x, y = (
        np.append(x[:inside], fpr_limit),
        np.append(y[:inside], np.interp(fpr_limit, x[around], y[around])),
    )
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]))) / 2 / fpr_limit


def check_limit(fpr_limit: float) -> None:
    """Refuse a limit of an integral that is not in (0, 1]."""
    if not 0 < fpr_limit <= 1:
        raise AvalancheADError(f"expected fpr_limit in (0, 1], got {fpr_limit}")


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
