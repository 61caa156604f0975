"""Runs made before: whether one is the run that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avalanche_ad.datasets.roots import Roots
from avalanche_ad.errors import ResultsError
from avalanche_ad.experiments.build import (
    data_digests,
    features_now,
)
from avalanche_ad.experiments.configuration import (
    configuration_differences,
    named_differences,
    run_configuration,
)
from avalanche_ad.experiments.own_code import own_code
from avalanche_ad.experiments.provenance import (
    check_data_of_run,
    check_same_features,
)
from avalanche_ad.experiments.results import (
    has_results,
    read_results,
)
from avalanche_ad.experiments.run_state import learner_id
from avalanche_ad.recipes import ExperimentRecipe

__all__ = [
    "check_code",
    "check_origin",
    "check_same_images",
    "finished_run",
    "shared_digests",
]


def finished_run(
    folder: Path,
    recipe: ExperimentRecipe,
    data: Roots,
    seed: int,
    start: Path | None = None,
) -> dict[str, Any] | None:
    """Return the results of a run made before, ``None`` where there are none.

    :param folder: the run's folder.
    :param recipe: what the run must have been of.
    :param data: the data set's folder or folders as the user gave them.
    :param seed: the seed it must have been made with.
    :param start: the run it must have gone on from.
    :raises ResultsError: when it is damaged, of another recipe, of another seed, or
        began otherwise.
    """
    if not has_results(folder):
        return None
    results = read_results(folder)
    other = "remove it, or choose another --out"
    now = run_configuration(recipe, data)
    if differences := configuration_differences(results["config"], now):
        longer = not configuration_differences(results["config"], now, stream=False)
        more = f"; --from {folder} goes on from it with new categories"
        raise ResultsError(
            f"{folder} holds a run of another recipe "
            f"({named_differences(differences)}): {other}{more if longer else ''}"
        )
    if results["seed"] != seed:
        raise ResultsError(
            f"{folder} holds a run of seed {results['seed']}, not {seed}: {other}"
        )
    went_on = results.get("continued")
    if (went_on or {}).get("learner") != (learner_id(start) if start else None):
        raise ResultsError(
            f"{folder} holds a run that went on from {went_on['run']} as it was then, "
            f"and this is another: give --from with that run, or {other}"
            if went_on
            else f"{folder} holds a run of the whole stream, which did not go on from "
            f"{start}: leave --from out, or {other}"
        )
    return results


def check_code(
    folder: Path, finished: Mapping[str, Any], recipe: ExperimentRecipe
) -> None:
    """Refuse a finished run whose own modules have changed.

    :param folder: the run's folder.
    :param finished: its results.
    :param recipe: its modules are imported, as :func:`check_strategy` does.
    :raises ResultsError: naming the modules.
    """
    made, code = finished.get("code", {}), own_code(recipe.folders.values())
    if changed := [name for name in made if code.get(name) != made[name]]:
        raise ResultsError(
            f"{folder} holds a run of other code of {', '.join(changed)} than there is "
            "now: `avalanche-ad run --fresh` makes it anew, or choose another --out"
        )


def check_origin(
    out: Path, finished: Mapping[str, Any], recipe: ExperimentRecipe, data: Roots
) -> None:
    """Refuse a finished run of other images, features or code than there are now."""
    check_code(out, finished, recipe)
    made, now = finished.get("data") or {}, data_digests(recipe.benchmark, data)
    if now is not None and "continued" in finished:
        made, now = shared_digests(made, now)
    check_data_of_run(out, made, now)
    features = finished.get("versions", {}).get("features")
    check_same_features(
        recipe.benchmark.features.backbone,
        [(out.name, features), ("now", features_now(recipe.benchmark))],
    )


def check_same_images(
    start: Path, made: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Refuse to go on from a run with other images of what it has learned."""
    if changed := [name for name in made if made[name] != now[name]]:
        raise ResultsError(
            f"{start} has learned other images of {', '.join(changed)} than there are "
            "now: give the data it was made with, or a stream of new categories alone"
        )


def shared_digests(
    made: Mapping[str, str], now: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return two data sets' digests of the categories that both have."""
    names = [name for name in made if name in now]
    return {name: made[name] for name in names}, {name: now[name] for name in names}
