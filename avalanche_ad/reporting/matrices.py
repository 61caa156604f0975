"""Matrices of results: the value on every task after every training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from avalanche_ad.errors import counted
from avalanche_ad.reporting.tables import Section, by_strategy, number

__all__ = ["matrix_sections", "mean_matrices", "mean_matrix", "mean_steps"]


def mean_matrix(
    runs: Sequence[Mapping[str, Any]], metric: str
) -> list[list[float | None]]:
    """Average a matrix over seeds; ``None`` where a seed has no value.

    :param runs: contents of ``results.json`` of one strategy.
    :param metric: for example ``"image_auroc"``.
    """
    matrices = [run["matrix"][metric] for run in runs]
    return [
        [None if None in cell else mean(cell) for cell in zip(*rows, strict=True)]
        for rows in zip(*matrices, strict=True)
    ]


def mean_matrices(
    results: Sequence[Mapping[str, Any]], metric: str
) -> dict[str, list[list[float | None]]]:
    """Return :func:`mean_matrix` by strategy."""
    return {
        strategy: mean_matrix(runs, metric)
        for strategy, runs in by_strategy(results).items()
    }


def mean_steps(
    results: Sequence[Mapping[str, Any]], metric: str
) -> dict[str, list[float | None]]:
    """Return by strategy the mean over the categories seen by then after each task.

    Averaged over seeds; a task counts by its categories, undefined ones are left out,
    and ``None`` is where there is no value, as before the end of joint training.

    :param results: contents of ``results.json`` of runs on one stream.
    :param metric: for example ``"image_auroc"``.
    """
    sizes = [len(names) for names in results[0]["categories"]]
    found = {}
    for strategy, matrix in mean_matrices(results, metric).items():
        steps: list[float | None] = []
        for step, row in enumerate(matrix, 1):
            seen = [
                (value, size)
                for value, size in zip(row[:step], sizes, strict=False)
                if value is not None
            ]
            count = sum(size for _, size in seen)
            total = sum(value * size for value, size in seen)
            steps.append(total / count if count else None)
        found[strategy] = steps
    return found


def matrix_sections(
    results: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> list[Section]:
    """Return a table per strategy and metric: task learned by task evaluated.

    :param results: contents of ``results.json``.
    :param metrics: for example ``("image_auroc", "pixel_auroc")``.
    """
    sections = []
    matrices = {metric: mean_matrices(results, metric) for metric in metrics}
    for strategy, runs in by_strategy(results).items():
        names = [f"task {task}" for task, _ in enumerate(runs[0]["categories"], 1)]
        for metric in metrics:
            lines = [
                [f"after {name}", *[number(value) for value in row]]
                for name, row in zip(names, matrices[metric][strategy], strict=True)
            ]
            caption = f"Mean over {counted(len(runs), 'seed')}."
            title = f"{strategy}: {metric.replace('_', ' ').replace('auroc', 'AUROC')}"
            sections.append(Section(title, caption, ["", *names], lines))
    return sections
