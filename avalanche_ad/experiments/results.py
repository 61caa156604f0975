"""The results of a run: assembled from its evaluations, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avalanche_ad.errors import ResultsError
from avalanche_ad.evaluation.functional import (
    forgetting,
    forgetting_max,
    mean_defined,
    step_mean,
)

__all__ = ["SCHEMA", "read_results", "summarise", "write_json"]

SCHEMA = 1
_KEYS = {"schema", "benchmark", "strategy", "seed", "categories", "config", "matrix"}


def summarise(
    history: Sequence[Mapping[str, Any]],
    experiences: Sequence[Sequence[str]],
    metrics: Sequence[str],
    baseline: Mapping[str, Sequence[float | None]] | None = None,
) -> dict[str, Any]:
    """Turn per-category evaluations into matrices, means and forgetting.

    :param history: one mapping per evaluated category with ``training_experience``,
        ``experience``, ``category`` and the metrics.
    :param experiences: category names of each experience.
    :param metrics: the metrics to summarise.
    :return: ``matrix``, ``per_category``, ``final``, ``step_mean``, ``forgetting`` and
        ``forgetting_max``, each by metric.
    """
    tasks = len(experiences)
    matrix: dict[str, Any] = {}
    per_category: dict[str, Any] = {}
    final: dict[str, Any] = {}
    mean: dict[str, Any] = {}
    for metric in metrics:
        cells: list[list[list[float | None]]] = [
            [[] for _ in range(tasks)] for _ in range(tasks)
        ]
        last: dict[str, float | None] = {}
        for row in history:
            step = row["training_experience"]
            cells[step][row["experience"]].append(row[metric])
            if step == tasks - 1:
                last[row["category"]] = row[metric]
        matrix[metric] = [[mean_defined(cell) for cell in line] for line in cells]
        per_category[metric] = last
        final[metric] = mean_defined(last.values())
        seen = [
            [value for cell in line[: step + 1] for value in cell]
            for step, line in enumerate(cells)
        ]
        mean[metric] = step_mean(seen) if all(seen) else None
    return {
        "matrix": matrix,
        "per_category": per_category,
        "final": final,
        "step_mean": mean,
        "forgetting": {name: forgetting(rows) for name, rows in matrix.items()},
        "forgetting_max": {name: forgetting_max(rows) for name, rows in matrix.items()},
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file beside its place, then move it there."""
    aside = path.with_name(path.name + ".partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def read_results(folder: Path) -> dict[str, Any]:
    """Read a run's ``results.json``.

    :param folder: the run's folder.
    :raises ResultsError: when it is missing, damaged or of another version.
    """
    path = folder / "results.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ResultsError(
            f"{folder} holds no finished run (results.json is missing): run it first"
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: cannot read the results ({error}); "
            "remove the folder and run the experiment again"
        ) from None
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise ResultsError(
            f"{path}: not the results of a run; "
            "remove the folder and run the experiment again"
        )
    if content["schema"] != SCHEMA:
        raise ResultsError(
            f"{path}: expected schema {SCHEMA}, found {content['schema']}: it was "
            "written by another version"
        )
    return content
