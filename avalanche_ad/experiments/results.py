"""The results of a run: assembled from its evaluations, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
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
    "RUNS",
    "SCHEMA",
    "WORKING_MARKER",
    "has_results",
    "is_working_folder",
    "pack_runs",
    "read_results",
    "read_runs",
    "summarise",
    "write_json",
    "write_whole",
]

SCHEMA = 1
RUNS = "RUNS.jsonl"
"""A file in the place of folders of runs: ``{"run": NAME, "results": …}`` a line.

``NAME`` is that of the run's folder, ``results`` what its ``results.json`` held. A
folder that is there as well goes before its line.
"""
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
        # joint training has no steps; an experience without test images has no values
        stepwise = [list(values.values()) for values in seen]
        at_last = [task for step, task in cells if step == tasks - 1]
        followed = all((task, task) in cells for task in at_last)
        steps[metric] = stepwise if followed else None
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


def has_results(folder: Path) -> bool:
    """Return whether there is a finished run, in its folder or as a line beside it."""
    return (folder / "results.json").is_file() or any(_line(folder))


def read_results(folder: Path) -> dict[str, Any]:
    """Read a run's ``results.json``, or its line in :data:`RUNS` beside its folder.

    :param folder: the run's folder.
    :raises ResultsError: when it is missing, damaged or of another version.
    """
    path = folder / "results.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        for _, results in _line(folder):
            return results
        raise ResultsError(
            f"{folder} holds no finished run (results.json is missing): run it first"
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: cannot read the results ({error}); "
            "remove the folder and run the experiment again"
        ) from None
    return _checked(content, path, "remove the folder and run the experiment again")


def pack_runs(folder: Path) -> list[str]:
    """Take the runs of a folder into its :data:`RUNS`, which stays ordered by name.

    :param folder: one with runs in it; they stay, and may be removed afterwards.
    :return: the names of all runs that the file then holds.
    :raises ResultsError: when one cannot be read.
    """
    found = _runs_in(folder)
    lines = [
        json.dumps({"run": name, "results": found[name]}, separators=(",", ":"))
        for name in sorted(found)
    ]
    write_whole(folder / RUNS, "".join(f"{line}\n" for line in lines))
    return sorted(found)


def _runs_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results of all finished runs in a folder, by the runs' names."""
    folders = [
        path.parent
        for path in folder.glob("*/results.json")
        if not is_working_folder(path.parent)
    ]
    found = dict(_lines(folder)) | {one.name: read_results(one) for one in folders}
    return dict(sorted(found.items()))


def _line(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the line of a run's folder, where there is one beside it."""
    whole = folder.absolute()
    return _lines(whole.parent, whole.name)


def _lines(
    folder: Path, name: str | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the runs of a folder's :data:`RUNS`, where it has one.

    :param name: yield this run alone.
    :raises ResultsError: when a line is damaged.
    """
    path = folder / RUNS
    quoted = "" if name is None else json.dumps(name)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: cannot read the runs ({error}); put the file back"
        ) from None
    for number, line in enumerate(lines, 1):
        if quoted not in line:  # long before it would be parsed
            continue
        where = f"{path}, line {number}"
        try:
            run = json.loads(line)
            found, results = run["run"], run["results"]
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(
                f"{where}: expected a run as JSON with its name as 'run' and its "
                f"'results' ({type(error).__name__}: {error}); put the file back"
            ) from None
        if name in (None, found):
            yield found, _checked(results, where, "put the file back")


def _checked(content: Any, where: object, mend: str) -> dict[str, Any]:
    """Return results if they are those of a run, of this version."""
    if (
        not isinstance(content, dict)
        or not content.keys() >= _KEYS
        or not isinstance(content.get("data", {}), dict)
    ):
        raise ResultsError(f"{where}: not the results of a run; {mend}")
    if content["schema"] != SCHEMA:
        raise ResultsError(
            f"{where}: expected schema {SCHEMA}, found {content['schema']}: it was "
            "written by another version"
        )
    return content


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """Read a run, or all finished runs in a folder, strategy by strategy.

    What is left of a run that was interrupted while it was written is passed over.

    :param folder: a run's folder, or one with runs in it, in folders of their own or as
        lines of :data:`RUNS`.
    :raises ResultsError: when there is none, when one is damaged, or when they cannot
        stand in one table: of several streams, of other images, or twice the
        same strategy and seed.
    """
    if has_results(folder):
        return [_updated(read_results(folder))]
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such folder; give one that holds runs")
    found = {
        folder / name: _updated(results) for name, results in _runs_in(folder).items()
    }
    if not found:
        deeper = {path.parents[1] for path in folder.glob("*/*/results.json")}
        deeper |= {path.parent for path in folder.glob(f"*/{RUNS}")}
        instead = f": give {' or '.join(map(str, sorted(deeper)))}" if deeper else ""
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
