"""Where a run begins: anew, where it was interrupted, or behind a finished one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.datasets import AnomalyData
from avalanche_ad.errors import ResultsError
from avalanche_ad.evaluation.csv_logger import TidyCSVLogger
from avalanche_ad.evaluation.metrics import AnomalyMetrics
from avalanche_ad.experiments.build import (
    build_metrics,
    build_model,
    build_strategy,
    planned_experiences,
)
from avalanche_ad.experiments.checkpoint_plugin import CheckpointPlugin
from avalanche_ad.experiments.folder import RunFolder
from avalanche_ad.experiments.progress_plugin import ProgressPlugin
from avalanche_ad.experiments.results import read_results
from avalanche_ad.experiments.run_state import (
    RunState,
    finished_learner,
    interrupted_run,
    learner_id,
)
from avalanche_ad.recipes import ExperimentRecipe
from avalanche_ad.training.optimizers import replace_parameters

__all__ = [
    "beginning",
    "experiences_behind",
    "fresh_state",
    "has_fresh_thresholds",
    "make_room",
    "place",
]


def experiences_behind(
    recipe: ExperimentRecipe, data: AnomalyData, start: Path | None
) -> tuple[Sequence[Sequence[str]], dict[str, Any] | None]:
    """Return what a run that goes on has behind it.

    :param start: the run it goes on from.
    :return: the experiences learned that the stream leaves out, and what tells this
        beginning from others; none and ``None`` without a start.
    :raises ResultsError: when the stream does not go on from that run.
    """
    if start is None:
        return (), None
    results = read_results(start)
    stream, before = recipe.benchmark, results["categories"]
    if results["config"].get("benchmark", {}).get("blurry"):
        raise ResultsError(
            f"{start} has learned a blurry stream, of whose categories some images "
            "came in other tasks: none goes on from it; run the longer stream whole"
        )
    if stream.blurry or stream.forward_transfer:
        key = "blurry" if stream.blurry else "forward_transfer"
        why = (
            "images of a category arrive in tasks that are over"
            if stream.blurry
            else "it compares with an untrained model"
        )
        raise ResultsError(
            f"--from {start} does not go with {key}, since {why}: set {key} = "
            f"{0 if stream.blurry else 'false'}, or run the stream as a whole"
        )
    continued = {
        "run": str(start),
        "experiences": len(before),
        "learner": learner_id(start),
    }
    planned = planned_experiences(stream, data)
    names = {name for experience in before for name in experience}
    if not any(name in names for experience in planned for name in experience):
        return before, continued
    if len(planned) > len(before) and [*planned[: len(before)]] == [*before]:
        return (), continued
    if [*planned] == [*before]:
        raise ResultsError(
            f"{start} has learned all of this stream: give one with more categories"
        )
    raise ResultsError(
        f"{start} has learned {[*before]}: expected a stream that begins with these "
        f"experiences and goes on, or one of other categories alone, got {[*planned]}"
    )


def beginning(
    folder: RunFolder,
    identity: Mapping[str, Any],
    device: torch.device,
    start: Path | None,
    fresh: bool,
    announce: Callable[[str], None],
) -> tuple[dict[str, Any] | None, bool]:
    """Return the state that a run begins in, ``None`` for one to be made.

    :param fresh: whether an interrupted run is discarded, but for one that was begun so
        beside a finished run.
    :return: what its file holds, and whether it is of this run, interrupted.
    :raises ResultsError: when an interrupted run is another or cannot be resumed.
    """
    try:
        found = interrupted_run(folder, identity, device)
    except ResultsError as error:
        if not fresh:
            raise
        announce(f"begins anew, as --fresh says; {error}")
        found = None
    if found is not None and fresh and not found["state"].fresh:
        announce(f"begins anew, as --fresh says: discards {folder.checkpoint}")
        found = None
    if found is not None or start is None:
        return found, found is not None
    return finished_learner(start, identity, device), False


def place(
    out: Path, state: RunState, benchmark: AnomalyBenchmark, source: Path | None
) -> str:
    """Say where a run goes on."""
    tasks = len(benchmark.experiences)
    if state.next >= tasks:
        return f"{out}: goes on after its last task, from {source}"
    where = "within" if state.within else "before"
    return f"{out}: goes on {where} task {state.next + 1} of {tasks}, from {source}"


def has_fresh_thresholds(run: Path) -> bool:
    """Return whether a run has thresholds of new normals."""
    try:
        return bool(json.loads((run / "model.json").read_text("utf-8")).get("fresh"))
    except (OSError, ValueError, AttributeError):
        return False


def make_room(state: RunState, benchmark: AnomalyBenchmark) -> None:
    """Let a learner have room for the categories to come, as if from the start."""
    names = benchmark.category_names
    state.metrics.category_names = names
    state.untrained, state.ahead = None, []  # of the stream that there was
    model = state.strategy.model
    before = dict(model.named_parameters())
    model.resize(len(names))
    now = dict(model.named_parameters())
    grown = {
        before[name]: now[name] for name in before if before[name] is not now[name]
    }
    replace_parameters(state.strategy.optimizer, grown)
    state.strategy.optimized_param_id = now


def fresh_state(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    device: torch.device,
    folder: RunFolder,
    seed: int,
) -> RunState:
    """Return the state of a run that begins anew."""
    model, options = build_model(recipe.benchmark, benchmark, seed)
    strategy = build_strategy(
        recipe,
        model,
        device,
        [AnomalyMetrics(benchmark.category_names, metrics=build_metrics(recipe))],
        [TidyCSVLogger(folder.metrics)],
        benchmark.mask_size,
        [ProgressPlugin()],
    )
    strategy.plugins.insert(0, CheckpointPlugin())
    return RunState(strategy, options)
