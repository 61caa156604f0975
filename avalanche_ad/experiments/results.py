"""The results of a run: assembled from its evaluations, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avalanche_ad.errors import ResultsError
from avalanche_ad.evaluation.continual import (
    backward_transfer,
    evaluation_cells,
    forgetting,
    forgetting_max,
    forward_transfer,
    mean_defined,
    plasticity,
    result_matrix,
    step_mean,
)
from avalanche_ad.experiments.configuration import updated_configuration
from avalanche_ad.experiments.provenance import check_same_data

__all__ = [
    "SCHEMA",
    "WORKING_MARKER",
    "is_working_folder",
    "read_results",
    "read_runs",
    "summarise",
    "write_json",
    "write_whole",
]

SCHEMA = 1
WORKING_MARKER = ".avalanche_ad_partial"
"""A file by which a folder is known as one where a run works."""
_KEYS = {"schema", "benchmark", "strategy", "seed", "categories", "config", "matrix"}


def summarise(
    history: Sequence[Mapping[str, Any]],
    experiences: Sequence[Sequence[str]],
    metrics: Sequence[str],
    baseline: Mapping[str, Sequence[float | None]] | None = None,
) -> dict[str, Any]:
    """Turn per-category evaluations into matrices, means, forgetting and transfer.

    Evaluations of experiences not learned yet stand in the matrix and in forward
    transfer, nowhere else.

    :param history: one mapping per evaluated category, as in
        :attr:`AnomalyMetrics.history`.
    :param experiences: category names of each experience.
    :param metrics: the metrics to summarise.
    :param baseline: by metric, the value of an untrained model on every experience,
        ``None`` where unmeasured; without it there is no forward transfer.
    :return: ``matrix``, ``per_category``, ``final``, ``step_mean``, ``forgetting``,
        ``forgetting_max``, ``bwt``, ``fwt`` and ``plasticity``, each by metric.
    """
    tasks = len(experiences)
    matrix: dict[str, list[list[float | None]]] = {}
    per_category: dict[str, dict[str, float | None]] = {}
    steps: dict[str, list[list[float | None]] | None] = {}
    for metric in metrics:
        cells = evaluation_cells(history, metric)
        matrix[metric] = result_matrix(history, metric, experiences=tasks)
        seen = [
            {
                name: value
                for task in range(step + 1)
                for name, value in cells.get((step, task), {}).items()
            }
            for step in range(tasks)
        ]
        per_category[metric] = seen[-1]
        # joint training has no steps
        stepwise = [list(values.values()) for values in seen]
        steps[metric] = stepwise if all(stepwise) else None
    return {
        "matrix": matrix,
        "per_category": per_category,
        "final": {m: mean_defined(last.values()) for m, last in per_category.items()},
        "step_mean": {m: step_mean(values or ()) for m, values in steps.items()},
        "forgetting": {m: forgetting(rows) for m, rows in matrix.items()},
        "forgetting_max": {m: forgetting_max(rows) for m, rows in matrix.items()},
        "bwt": {m: backward_transfer(rows) for m, rows in matrix.items()},
        "fwt": {
            m: forward_transfer(rows, (baseline or {}).get(m, ()))
            for m, rows in matrix.items()
        },
        "plasticity": {m: plasticity(matrix[m]) if steps[m] else None for m in matrix},
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, see :func:`write_whole`."""
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place, then move it there."""
    aside = path.with_name(path.name + ".partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def is_working_folder(folder: Path) -> bool:
    """Return whether a folder is where a run works, or worked when it was stopped."""
    return folder.suffix == ".partial" and (folder / WORKING_MARKER).is_file()


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
    if (
        not isinstance(content, dict)
        or not content.keys() >= _KEYS
        or not isinstance(content.get("data", {}), dict)
    ):
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


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Read a run, or all finished runs in a folder, strategy by strategy.

    What is left of a run that was interrupted while it was written is passed over.

    :param folder: a run's folder, or one with runs in it.
    :raises ResultsError: when there is none, when one is damaged, or when they cannot
        stand in one table: of several streams, of other images, or twice the
        same strategy and seed.
    """
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; give one that holds runs")
    if (folder / "results.json").is_file():
        return [_updated(read_results(folder))]
    found = {
        path.parent: _updated(read_results(path.parent))
        for path in sorted(folder.glob("*/results.json"))
        if not is_working_folder(path.parent)
    }
    if not found:
        deeper = sorted({path.parents[1] for path in folder.glob("*/*/results.json")})
        instead = f": give {' or '.join(map(str, deeper))}" if deeper else ""
        raise ResultsError(f"{folder} holds no finished run{instead}")
    first, *others = found
    for other in others:
        for key in ("benchmark", "categories"):
            if found[other][key] != found[first][key]:
                raise ResultsError(
                    f"{first} and {other} are runs on different streams ({key}); "
                    "report on folders that hold one stream each"
                )
    check_same_data(
        [(path.name, run.get("data")) for path, run in found.items()],
        "report on folders that hold runs of the same images each",
    )
    owners: dict[tuple[str, int], Path] = {}
    for path, run in found.items():
        twin = owners.setdefault((run["strategy"], run["seed"]), path)
        if twin != path:
            raise ResultsError(
                f"{twin} and {path} are both runs of {run['strategy']}, seed "
                f"{run['seed']}; move one elsewhere"
            )
    return sorted(found.values(), key=lambda run: (run["strategy"], run["seed"]))


def _updated(results: dict[str, Any]) -> dict[str, Any]:
    return {**results, "config": updated_configuration(results["config"])}
