"""Continual-learning measures as pure functions of plain values.

``R[i][j]`` is the value on experience j after training on experience i, higher is
better, ``None`` where it was not measured or is undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "backward_transfer",
    "difference",
    "evaluation_cells",
    "forgetting",
    "forgetting_max",
    "forward_transfer",
    "mean_defined",
    "plasticity",
    "result_matrix",
    "step_mean",
]

Matrix = Sequence[Sequence[float | None]]


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
