"""Exact anomaly-detection and continual-learning measures as pure functions.

Detection. Scores are sorted once and every measure is read off the same counts, taken
at every *distinct* score of an anomalous sample; in between, only the number of false
positives changes, so no threshold is left out. Samples that tie are above or below a
threshold together, so no measure depends on their order. Higher scores are more
anomalous, and a ranking below chance is reported as it is.

Continual learning. ``R[i][j]`` is the value on experience j after training on
experience i, higher is better, ``None`` where it was not measured or is undefined.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from avalanche_ad.errors import AvalancheADError

__all__ = [
    "BinaryMetrics",
    "PixelMetrics",
    "UndefinedMetricWarning",
    "aupro",
    "auroc",
    "average_precision",
    "backward_transfer",
    "binary_metrics",
    "difference",
    "evaluation_cells",
    "f1_max",
    "forgetting",
    "forgetting_max",
    "forward_transfer",
    "fpr_at_tpr",
    "mean_defined",
    "missing_class",
    "pixel_metrics",
    "plasticity",
    "result_matrix",
    "step_mean",
]

Matrix = Sequence[Sequence[float | None]]

# One plane of neighbours: pixels touching by an edge or a corner are one region, images
# of a stack are never joined.
_EIGHT_CONNECTED = np.zeros((3, 3, 3), dtype=np.bool_)
_EIGHT_CONNECTED[1] = True


class UndefinedMetricWarning(UserWarning):
    """A measure has no value because one of the two classes is missing."""


@dataclass(frozen=True, slots=True)
class BinaryMetrics:
    """How well scores separate anomalous from normal; ``None`` where undefined.

    :param auroc: area under the ROC curve.
    :param ap: average precision.
    :param f1max: highest F1 over all thresholds.
    :param threshold: the score at which F1 is highest; at or above it is anomalous.
    """

    auroc: float | None
    ap: float | None
    f1max: float | None
    threshold: float | None


@dataclass(frozen=True, slots=True)
class PixelMetrics(BinaryMetrics):
    """The same over the pixels of score maps, and the region overlap.

    :param aupro: area under the per-region-overlap curve up to the limit.
    """

    aupro: float | None


@dataclass(frozen=True, slots=True)
class _Curve:
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


def binary_metrics(scores: npt.ArrayLike, labels: npt.ArrayLike) -> BinaryMetrics:
    """Compute AUROC, AP and F1-max exactly from one sort.

    With TP and FP counted at every distinct score, P and N the totals:
    AUROC is the trapezoid area of TP/P over FP/N, AP = sum of (change of recall) *
    precision without interpolation, and F1-max the maximum of 2 TP / (TP + FP + P).
    All equal scikit-learn's ``roc_auc_score``, ``average_precision_score`` and the
    maximum over ``precision_recall_curve``.

    :param scores: any shape, higher is more anomalous.
    :param labels: same shape, true where anomalous.
    :return: the measures; all ``None``, with an :class:`UndefinedMetricWarning`, when
        one class is missing.
    :raises AvalancheADError: when the sizes differ or a score is not finite.

    >>> binary_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]).auroc
    0.75
    """
    flat, anomalous = _checked(scores, labels)
    missing = missing_class(anomalous)
    if missing is not None:
        _warn_undefined("AUROC, AP and F1-max", missing, "samples")
        return BinaryMetrics(None, None, None, None)
    return _binary(_curve(flat, anomalous))


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

    The threshold is the highest score at which at least that share of the anomalous
    samples is at or above it. ``None``, with a warning, when one class is missing.

    :param scores: any shape, higher is more anomalous.
    :param labels: same shape, true where anomalous.
    :param tpr: in (0, 1].

    >>> fpr_at_tpr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.5
    """
    checked = _checked(scores, labels)
    missing = missing_class(checked[1])
    if missing:
        _warn_undefined("FPR", missing, "samples")
        return None
    curve = _curve(*checked)
    wanted = np.searchsorted(curve.true, np.ceil(tpr * curve.true[-1] - 1e-9))
    return float(curve.false[wanted] / curve.negatives)


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
    flat, anomalous = _checked(score_maps, masks)
    _check_maps(masks, fpr_limit)
    missing = missing_class(anomalous)
    if missing is not None:
        _warn_undefined("pixel AUROC, AP, F1-max and AUPRO", missing, "pixels")
        return PixelMetrics(None, None, None, None, None)
    curve = _curve(flat, anomalous)
    binary = _binary(curve)
    return PixelMetrics(
        binary.auroc,
        binary.ap,
        binary.f1max,
        binary.threshold,
        _aupro(curve, anomalous.reshape(np.shape(masks)), fpr_limit),
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
    flat, anomalous = _checked(score_maps, masks)
    _check_maps(masks, fpr_limit)
    missing = missing_class(anomalous)
    if missing is not None:
        _warn_undefined("AUPRO", missing, "pixels")
        return None
    maps = anomalous.reshape(np.shape(masks))
    return _aupro(_curve(flat, anomalous), maps, fpr_limit)


def missing_class(labels: npt.ArrayLike) -> str | None:
    """Name the class that is missing, without which no measure is defined.

    :param labels: any shape, true where anomalous.
    :return: ``"anomalous"``, ``"normal"``, or ``None`` when both are there.
    """
    anomalous = np.asarray(labels)
    if not anomalous.any():
        return "anomalous"
    return "normal" if anomalous.all() else None


def _warn_undefined(measures: str, missing: str, unit: str) -> None:
    warnings.warn(
        f"{measures} undefined: no {missing} {unit}; the value is None",
        UndefinedMetricWarning,
        stacklevel=3,
    )


def _checked(
    scores: npt.ArrayLike, labels: npt.ArrayLike
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]:
    """Flatten both, keeping the precision of floating-point scores."""
    score = np.asarray(scores)
    label = np.asarray(labels)
    if score.shape != label.shape:
        raise AvalancheADError(
            f"expected scores and labels of one shape, got {score.shape} and "
            f"{label.shape}"
        )
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
    if label.dtype != np.bool_:
        label = label.astype(np.bool_)
    return score.ravel(), label.ravel()


def _check_maps(masks: npt.ArrayLike, fpr_limit: float) -> None:
    if np.ndim(masks) != 3:
        raise AvalancheADError(
            f"expected score maps and masks of shape (N, H, W), got {np.shape(masks)}"
        )
    if not 0 < fpr_limit <= 1:
        raise AvalancheADError(f"expected fpr_limit in (0, 1], got {fpr_limit}")


def _curve(
    scores: npt.NDArray[np.floating], anomalous: npt.NDArray[np.bool_]
) -> _Curve:
    found = scores[anomalous]
    order = np.argsort(found)[::-1]
    found = found[order]
    last = np.append(np.flatnonzero(found[1:] != found[:-1]), found.size - 1)
    thresholds = found[last]
    normal = np.sort(scores[~anomalous])
    return _Curve(
        scores=thresholds,
        order=order,
        last=last,
        true=last + 1,
        false=normal.size - np.searchsorted(normal, thresholds, side="left"),
        above=normal.size - np.searchsorted(normal, thresholds, side="right"),
        negatives=normal.size,
    )


def _binary(curve: _Curve) -> BinaryMetrics:
    true, false = curve.true.astype(np.float64), curve.false.astype(np.float64)
    positives = true[-1]
    recalled = np.diff(true, prepend=0.0) / positives
    outranked = 1 - (curve.false + curve.above) / (2 * curve.negatives)
    f1 = 2 * true / (true + false + positives)
    best = int(np.argmax(f1))
    return BinaryMetrics(
        auroc=float(np.sum(recalled * outranked)),
        ap=float(np.sum(recalled * true / (true + false))),
        f1max=float(f1[best]),
        threshold=float(curve.scores[best]),
    )


def _aupro(curve: _Curve, masks: npt.NDArray[np.bool_], fpr_limit: float) -> float:
    masks = masks[masks.any(axis=(1, 2))]
    regions, count = ndimage.label(masks, structure=_EIGHT_CONNECTED)
    region = regions[masks] - 1
    # A pixel of region r adds 1 / (pixels of r * number of regions) to the mean overlap
    share = 1 / (np.bincount(region, minlength=count) * count)
    overlap = np.cumsum(share[region[curve.order]])[curve.last]
    # The curve runs level up to the normal pixels strictly above a threshold, then in a
    # straight line over those that tie with it.
    ends = np.column_stack((curve.above, curve.false)).ravel() / curve.negatives
    x = np.concatenate(([0.0], ends, [1.0]))
    y = np.concatenate(([0.0, 0.0], np.repeat(overlap, 2)))
    inside = int(np.searchsorted(x, fpr_limit, side="right"))
    at_limit = np.interp(
        fpr_limit, x[inside - 1 : inside + 1], y[inside - 1 : inside + 1]
    )
    x = np.append(x[:inside], fpr_limit)
    y = np.append(y[:inside], at_limit)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]))) / 2 / fpr_limit


def mean_defined(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not ``None``; ``None`` when nothing is left."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def forgetting(matrix: Matrix) -> float | None:
    """Mean loss since each experience was learned; positive = forgot.

    mean over j < T-1 of R[j][j] - R[T-1][j]: Avalanche's definition.

    :param matrix: R, one row per training experience.
    :return: ``None`` for a stream of one experience.
    """
    return _mean_loss(matrix, lambda j: _at(matrix, j, j))


def forgetting_max(matrix: Matrix) -> float | None:
    """Mean loss since each experience was known best; positive = forgot.

    mean over j < T-1 of max over j <= i < T-1 of R[i][j] - R[T-1][j] (Chaudhry et al.,
    ECCV 2018, equation 3).

    :param matrix: R, one row per training experience.
    :return: ``None`` for a stream of one experience.
    """

    def best(j: int) -> float | None:
        column = (_at(matrix, i, j) for i in range(j, len(matrix) - 1))
        return max((value for value in column if value is not None), default=None)

    return _mean_loss(matrix, best)


def backward_transfer(matrix: Matrix) -> float | None:
    """Mean gain since each experience was learned: the negative of forgetting.

    :param matrix: R, one row per training experience.
    :return: ``None`` for a stream of one experience.
    """
    lost = forgetting(matrix)
    return None if lost is None else -lost


def forward_transfer(matrix: Matrix, baseline: Sequence[float | None]) -> float | None:
    """Mean head start on experiences not trained on yet.

    mean over j >= 1 of R[j-1][j] - b_j (Lopez-Paz and Ranzato, NeurIPS 2017).

    :param matrix: R, one row per training experience.
    :param baseline: b_j, the value of an untrained model on experience j.
    :return: ``None`` for a stream of one experience.
    """
    return mean_defined(
        difference(_at(matrix, j - 1, j), baseline[j])
        for j in range(1, min(len(matrix) + 1, len(baseline)))
    )


def plasticity(matrix: Matrix) -> float | None:
    """Mean value of each experience right after training on it: mean of R[j][j].

    :param matrix: R, one row per training experience.
    """
    return mean_defined(_at(matrix, j, j) for j in range(len(matrix)))


def step_mean(steps: Matrix) -> float | None:
    """Mean over steps of the mean over what was seen up to each step.

    :param steps: for every training experience, the values of all that has been seen
        by then; categories, where experiences differ in size.
    """
    return mean_defined(mean_defined(step) for step in steps)


def evaluation_cells(
    history: Iterable[Mapping[str, Any]], metric: str, stream: str = "test"
) -> dict[tuple[int, int], dict[str, float | None]]:
    """Sort a record of evaluations into the cells of the matrix R of one metric.

    Of several evaluations of one cell, the latest counts. What was evaluated before
    any training is left out.

    :param history: :attr:`AnomalyMetrics.history`.
    :param metric: for example ``"image_auroc"``.
    :param stream: the evaluated stream.
    :return: (training experience, evaluated experience) → category → value.
    """
    cells: dict[tuple[int, int], dict[str, float | None]] = {}
    for entry in history:
        row = entry["training_experience"]
        if row is not None and entry["stream"] == stream:
            cell = cells.setdefault((row, entry["experience"]), {})
            cell[entry["category"]] = entry.get(metric)
    return cells


def result_matrix(
    history: Iterable[Mapping[str, Any]],
    metric: str,
    stream: str = "test",
    experiences: int | None = None,
) -> list[list[float | None]]:
    """Arrange a record of evaluations as the matrix R of one metric.

    An entry is the mean over the categories of the experience; of several evaluations
    of one cell, the latest counts. What was evaluated before any training is left out.

    :param history: :attr:`AnomalyMetrics.history`.
    :param metric: for example ``"image_auroc"``.
    :param stream: the evaluated stream.
    :param experiences: rows and columns wanted; by default as many as were trained
        and evaluated.
    """
    cells = evaluation_cells(history, metric, stream)
    rows = columns = experiences
    if rows is None:
        rows = max((row for row, _ in cells), default=-1) + 1
    if columns is None:
        columns = max((column for _, column in cells), default=-1) + 1
    return [
        [
            mean_defined(cells.get((row, column), {}).values())
            for column in range(columns)
        ]
        for row in range(rows)
    ]


def _at(matrix: Matrix, row: int, column: int) -> float | None:
    return matrix[row][column] if column < len(matrix[row]) else None


def difference(first: float | None, second: float | None) -> float | None:
    """Return first − second, ``None`` where either is."""
    return None if first is None or second is None else first - second


def _mean_loss(
    matrix: Matrix, reference: Callable[[int], float | None]
) -> float | None:
    last = len(matrix) - 1
    return mean_defined(
        difference(reference(j), _at(matrix, last, j)) for j in range(last)
    )
