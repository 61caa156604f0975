"""One run: a recipe in, a folder with results, metrics and the model out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.supervised import Cumulative, JointTraining

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.datasets import AnomalyData
from avalanche_ad.errors import ResultsError, reading
from avalanche_ad.evaluation.csv_logger import TidyCSVLogger
from avalanche_ad.evaluation.metrics import AnomalyMetrics
from avalanche_ad.experiments.accounting import memory_mb
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    build_metrics,
    build_model,
    build_strategy,
    check_strategy,
    data_digests,
    features_now,
    open_data,
    planned_experiences,
)
from avalanche_ad.experiments.checkpoint import (
    StaleCheckpointError,
    restore_generators,
)
from avalanche_ad.experiments.checkpoint_plugin import (
    CHECKPOINT_MINUTES,
    CheckpointPlugin,
    finish_training,
)
from avalanche_ad.experiments.configuration import (
    configuration_differences,
    named_differences,
    run_configuration,
)
from avalanche_ad.experiments.folder import RunFolder, is_worked_on, run_folder
from avalanche_ad.experiments.forward import evaluate_apart, untrained_values
from avalanche_ad.experiments.fresh_normals import FINGERPRINT
from avalanche_ad.experiments.own_code import own_code
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.progress_plugin import ProgressPlugin
from avalanche_ad.experiments.provenance import (
    check_data_of_run,
    check_same_features,
    features_id,
    git_commit,
    package_versions,
    peak_rss_mb,
)
from avalanche_ad.experiments.results import (
    SCHEMA,
    has_results,
    read_results,
    summarise,
    write_json,
)
from avalanche_ad.experiments.run_state import (
    Checkpoints,
    RunState,
    finished_learner,
    interrupted_run,
    learner_id,
    only,
)
from avalanche_ad.features import Backbone, FeatureCache
from avalanche_ad.models.registry import MODELS
from avalanche_ad.models.storage import save_model
from avalanche_ad.recipes import ExperimentRecipe
from avalanche_ad.training.optimizers import replace_parameters
from avalanche_ad.training.plugins import CalibrationPlugin

__all__ = ["check_code", "finished_run", "run_experiment"]

AfterFeatures = Callable[[int], None]
AfterTask = Callable[[int, Sequence[Mapping[str, Any]]], None]


def finished_run(
    folder: Path,
    recipe: ExperimentRecipe,
    data: Path | None,
    seed: int,
    start: Path | None = None,
) -> dict[str, Any] | None:
    """Return the results of a run made before, ``None`` where there are none.

    :param folder: the run's folder.
    :param recipe: what the run must have been of.
    :param data: the data set's folder as the user gave it.
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


def run_experiment(
    recipe: ExperimentRecipe,
    out: Path,
    *,
    data_root: Path | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    cache: FeatureCache | None = None,
    progress: RunProgress | None = None,
    announce: Callable[[str], None] = lambda text: None,
    after_features: AfterFeatures | None = None,
    after_task: AfterTask | None = None,
    fresh: bool = False,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train and evaluate a strategy on a stream, and save the run.

    After each experience the experiences seen so far are evaluated; with the recipe's
    ``forward_transfer`` the next one too, apart from them. The folder gets
    ``results.json``, ``metrics.csv``, ``model.json``, ``model.safetensors`` and
    ``learner`` at the end, all or none of them; until then the run lives beside it as
    ``NAME.partial``, with a checkpoint from which the same call resumes after an
    interruption: one after each experience, and within one at the end of an epoch
    where the last is some minutes old. It goes on to the same bits.

    :param recipe: what to run.
    :param out: the run's folder; a finished run of the same recipe and seed is
        returned, one of another recipe or seed and anything else is refused.
    :param data_root: the data set's folder.
    :param seed: decides the model's start and the order of minibatches.
    :param device: where to train.
    :param cache: the feature cache.
    :param progress: a progress bar.
    :param announce: called with a line of text where a run is there or goes on.
    :param after_features: called when all features are there, with the number of calls
        of the backbone that it took: 0 when the cache had them all.
    :param after_task: called with the experience's index and its evaluation.
    :param fresh: make a finished run anew, and let it take the place of the old one's
        files when it is finished (interrupted, the same call resumes it); where there
        is none, discard an interrupted one.
    :param checkpoint_minutes: between two checkpoints within an experience, 0 for one
        an epoch.
    :param start: a finished run to go on from: its learner, whole, learns what is new.
        The stream begins with the experiences it has learned, or holds new categories
        alone; then the old ones' images need not be there, and are not evaluated. The
        seed and all but the stream must be as they were. The results are those of one
        run of the whole stream, where its categories are all evaluated, since an
        evaluation draws random numbers too.
    :return: what ``results.json`` holds.
    :raises AvalancheADError: when data, recipe or folder are not as expected, an
        interrupted run in the folder is another, or training breaks.
    """
    started, commit = time.perf_counter(), git_commit()
    check_strategy(recipe)
    device = device or torch.device("cpu")

    def there() -> dict[str, Any] | None:
        # one of another recipe, seed or beginning is refused, with --fresh as well
        results = finished_run(out, recipe, data_root, seed, start)
        if results is None or fresh:
            return None
        _check_origin(out, results, recipe, data_root)
        gone = data_root is not None and not data_root.is_dir()
        unseen = f", its images not compared (no folder {data_root})" if gone else ""
        announce(f"{out}: this run is already there{unseen}; --fresh makes it anew")
        return results

    with reading(out):  # before anything is written: it may be in a place for that
        if not is_worked_on(out) and (results := there()):
            return results
    with run_folder(out) as folder:
        fresh = fresh and not folder.arrived
        if results := there():
            return results
        # the data first: a backbone may have to be downloaded
        data = open_data(recipe.benchmark, data_root)
        elsewhere, continued = _going_on(recipe, data, start)
        backbone = build_backbone(recipe.benchmark)
        identity = _identity(recipe, data_root, seed, device, backbone, continued)
        find = partial(_beginning, folder, identity, device, start, fresh, announce)
        try:
            found, resumed = find()
            stale = False
        except StaleCheckpointError:  # of features that are made anew first
            stale = True
        benchmark = build_benchmark(
            recipe.benchmark,
            data,
            backbone,
            cache or FeatureCache(),
            device,
            progress.report if progress else None,
            elsewhere,
        )
        if after_features:
            after_features(backbone.calls)
        if stale:
            found, resumed = find()
        made = found["identity"].get("data", {}) if found else {}
        if start is None:
            check_data_of_run(folder.partial, made, benchmark.digests)
        else:
            _check_same_images(start, *_shared(made, benchmark.digests))
        identity["data"] = {**made, **benchmark.digests}
        waited = time.perf_counter() - started

        if found is None:
            # only now: a wrong command must not cost another run its checkpoint
            folder.clear()
            RNGManager.set_random_seeds(seed)
            state = _fresh_state(recipe, benchmark, device, folder, seed)
        else:
            state = found["state"]
            identity["versions"]["device"] = str(state.strategy.device)
        if not resumed:
            state.fresh = fresh
            if start is not None:
                folder.clear()
                shutil.copyfile(start / folder.metrics.name, folder.metrics)
                _make_room(state, benchmark)
            folder.note_replaced()
        checkpoints = Checkpoints(folder, identity, state)
        if found is None:
            checkpoints.probe()
        else:
            folder.cut_metrics(state.csv_bytes)
            state.logger.path = folder.metrics  # seen from where this run was started
            announce(
                _place(out, state, benchmark, folder.partial if resumed else start)
            )
            if start is not None and not resumed and _has_fresh(start):
                announce(
                    f"the thresholds that calibrate took for {start} stay with it: "
                    "take them anew for this run"
                )
            # last, because building a backbone draws random numbers
            restore_generators(found)
        state.training_images |= benchmark.training_images
        only(CheckpointPlugin, state.strategy.plugins).minutes = checkpoint_minutes
        _learn(recipe, benchmark, state, checkpoints, progress, after_task)

        results = _results(recipe, benchmark, state, identity, waited)
        results["git"] = commit
        _save_model(recipe, benchmark, state, folder)
        checkpoints.save_learner()
        write_json(folder.partial / "results.json", results)
        folder.publish()
    return results


def _identity(
    recipe: ExperimentRecipe,
    data_root: Path | None,
    seed: int,
    device: torch.device,
    backbone: Backbone,
    continued: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what a run is of, as JSON values; its data's digests come later."""
    configuration = run_configuration(recipe, data_root)
    return {
        "configuration": json.loads(json.dumps(configuration)),
        "seed": seed,
        "code": own_code(recipe.folders.values()),
        "continued": continued,
        "versions": {
            **package_versions(),
            "device": str(device),
            "threads": str(torch.get_num_threads()),
            # one name, one file: its weights may be others than they were
            "features": features_id(backbone),
        },
    }


def _results(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    state: RunState,
    identity: Mapping[str, Any],
    waited: float,
) -> dict[str, Any]:
    """Return what ``results.json`` holds, but for the commit.

    :param waited: seconds until all features were there.
    """
    seconds = {
        "features": waited,
        **state.seconds,
        "total": waited + sum(state.seconds.values()),
    }
    versions = dict(identity["versions"])
    if state.begun_with:
        versions["begun_with"] = "; ".join(state.begun_with)
    return {
        "schema": SCHEMA,
        "benchmark": recipe.benchmark_name,
        "strategy": recipe.strategy_name,
        "seed": identity["seed"],
        "categories": [list(names) for names in benchmark.experiences],
        "versions": versions,
        "config": identity["configuration"],
        "data": identity["data"],
        "git": None,
        **summarise(
            [*state.metrics.history, *state.ahead],
            benchmark.experiences,
            state.metrics.names,
            baseline=state.untrained,
        ),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_rss_mb": peak_rss_mb(),
        "memory_mb": memory_mb(
            state.strategy, benchmark, recipe.benchmark.features.dtype
        ),
        **{key: identity[key] for key in ("code", "continued") if identity[key]},
    }


def _check_origin(
    out: Path, finished: Mapping[str, Any], recipe: ExperimentRecipe, data: Path | None
) -> None:
    """Refuse a finished run of other images, features or code than there are now."""
    check_code(out, finished, recipe)
    made, now = finished.get("data") or {}, data_digests(recipe.benchmark, data)
    if now is not None and "continued" in finished:
        made, now = _shared(made, now)
    check_data_of_run(out, made, now)
    features = finished.get("versions", {}).get("features")
    check_same_features(
        recipe.benchmark.features.backbone,
        [(out.name, features), ("now", features_now(recipe.benchmark))],
    )


def _check_same_images(
    start: Path, made: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Refuse to go on from a run with other images of what it has learned."""
    if changed := [name for name in made if made[name] != now[name]]:
        raise ResultsError(
            f"{start} has learned other images of {', '.join(changed)} than there are "
            "now: give the data it was made with, or a stream of new categories alone"
        )


def _shared(
    made: Mapping[str, str], now: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return two data sets' digests of the categories that both have."""
    names = [name for name in made if name in now]
    return {name: made[name] for name in names}, {name: now[name] for name in names}


def _going_on(
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


def _beginning(
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


def _place(
    out: Path, state: RunState, benchmark: AnomalyBenchmark, source: Path | None
) -> str:
    """Say where a run goes on."""
    tasks = len(benchmark.experiences)
    if state.next >= tasks:
        return f"{out}: goes on after its last task, from {source}"
    where = "within" if state.within else "before"
    return f"{out}: goes on {where} task {state.next + 1} of {tasks}, from {source}"


def _has_fresh(run: Path) -> bool:
    """Return whether a run has thresholds of new normals."""
    try:
        return bool(json.loads((run / "model.json").read_text("utf-8")).get("fresh"))
    except (OSError, ValueError, AttributeError):
        return False


def _make_room(state: RunState, benchmark: AnomalyBenchmark) -> None:
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


def _fresh_state(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    device: torch.device,
    folder: RunFolder,
    seed: int,
) -> RunState:
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


def _learn(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    state: RunState,
    checkpoints: Checkpoints,
    progress: RunProgress | None,
    after_task: AfterTask | None,
) -> None:
    """Learn the experiences that are left, one after the other or all at once."""
    strategy = state.strategy
    strategy.evaluator.active = True
    ticker = only(ProgressPlugin, strategy.plugins)
    ticker.progress = progress
    if progress:
        steps = _training_steps(recipe, benchmark, strategy, state.next)
        progress.start("training", steps)
    saver = only(CheckpointPlugin, strategy.plugins)
    clock = _Stopwatch(state.seconds)

    def save_within() -> None:
        clock.note("train")
        state.within = True
        checkpoints.save()
        state.within = False
        if not checkpoints.within_task:
            saver.save = None

    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    joint = isinstance(strategy, JointTraining)
    ahead = recipe.benchmark.forward_transfer and not joint
    if ahead and state.untrained is None:
        state.untrained = untrained_values(
            strategy,
            benchmark,
            recipe.benchmark.training.calibration_images,
            state.metrics,
        )
        clock.note("eval")
    first = max(state.next, len(train) - 1) if joint else state.next
    for task in range(first, len(train)):
        ticker.what = "joint" if joint else f"experience {task + 1}/{len(train)}"
        if checkpoints.within_task:
            saver.save = save_within
        saver.start()
        if state.within:
            state.within = False
            finish_training(strategy, num_workers=0)
        else:
            strategy.train(train if joint else train[task], num_workers=0)
        clock.note("train")
        before = len(state.metrics.history)
        strategy.eval(
            [one for one in test[: task + 1] if len(one.dataset)], num_workers=0
        )
        if ahead and task + 1 < len(train):
            future = evaluate_apart(
                strategy, strategy.model, state.metrics, [test[task + 1]]
            )
            state.ahead += [{**row, "training_experience": task} for row in future]
        clock.note("eval")
        state.next = task + 1
        checkpoints.save()
        if after_task:
            after_task(task, state.metrics.history[before:])


class _Stopwatch:
    """Adds up seconds by what they were spent on."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.since = time.perf_counter()

    def note(self, what: str) -> None:
        """Count the time since the last note."""
        now = time.perf_counter()
        self.seconds[what] += now - self.since
        self.since = now


def _training_steps(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    strategy: Any,
    first: int,
) -> int:
    """Estimate the number of training minibatches still to come."""
    training = recipe.benchmark.training
    counts = [len(experience.dataset) for experience in benchmark.train_stream]
    if isinstance(strategy, Cumulative):
        counts = np.cumsum(counts).tolist()
    batches = sum(-(-count // training.batch_size) for count in counts[first:])
    return max(1, batches * training.epochs)


def _save_model(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    state: RunState,
    folder: RunFolder,
) -> None:
    """Save the model with all that prediction needs."""
    last = len(benchmark.experiences) - 1
    calibration = only(CalibrationPlugin, state.strategy.plugins)
    features = recipe.benchmark.features.model_dump(mode="json")
    if "weights" in features["options"]:
        # prediction may run in another folder
        weights = Path(features["options"]["weights"]).resolve()
        features["options"]["weights"] = str(weights)
    model = state.strategy.model
    # by its path where it has no name of its own
    own = MODELS.own.get(getattr(model, "kind", "")) is type(model).plain
    save_model(
        model,
        folder.partial,
        model.kind if own else recipe.benchmark.model.type,
        state.options,
        {
            "categories": list(benchmark.category_names),
            "experiences": [list(names) for names in benchmark.experiences],
            "image_size": benchmark.image_size,
            "mask_size": benchmark.mask_size,
            "backbone": features,
            "thresholds": {
                "f1max": {
                    row["category"]: row["image_threshold"]
                    for row in state.metrics.history
                    if row["training_experience"] == last
                },
                "quantile": {
                    benchmark.category_names[category]: value
                    for category, value in calibration.thresholds.items()
                },
            },
            "quantile": calibration.quantile,
            "held_out": {
                benchmark.category_names[category]: held_out.scores
                for category, held_out in calibration.held_out.items()
            },
            "density_held_out": {
                benchmark.category_names[category]: held_out
                for category, held_out in calibration.density_held_out.items()
            },
            # so that none of them is taken for a new one
            "training_images": {
                name: [image[:FINGERPRINT] for image in images]
                for name, images in state.training_images.items()
            },
        },
    )
