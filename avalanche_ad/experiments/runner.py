"""One run: a recipe in, a folder with results, metrics and the model out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.supervised import Cumulative, JointTraining

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.errors import ResultsError
from avalanche_ad.evaluation.csv_logger import TidyCSVLogger
from avalanche_ad.evaluation.metrics import AnomalyMetrics
from avalanche_ad.evaluation.names import metric_names
from avalanche_ad.experiments.accounting import memory_mb
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    build_model,
    build_strategy,
    check_strategy,
    open_data,
)
from avalanche_ad.experiments.checkpoint import (
    load_checkpoint,
    restore_generators,
    save_checkpoint,
)
from avalanche_ad.experiments.configuration import (
    run_configuration,
    updated_configuration,
)
from avalanche_ad.experiments.folder import RunFolder, run_folder
from avalanche_ad.experiments.forward import evaluate_apart, untrained_values
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.progress_plugin import ProgressPlugin
from avalanche_ad.experiments.provenance import (
    features_id,
    git_commit,
    package_versions,
    peak_rss_mb,
)
from avalanche_ad.experiments.recipe import ExperimentRecipe
from avalanche_ad.experiments.results import (
    SCHEMA,
    read_results,
    summarise,
    write_json,
)
from avalanche_ad.features import FeatureCache
from avalanche_ad.models import PackNetFlowGMM
from avalanche_ad.models.storage import save_model
from avalanche_ad.training.plugins import CalibrationPlugin

__all__ = ["finished_run", "run_experiment"]

Kind = TypeVar("Kind")

AfterFeatures = Callable[[int], None]
AfterTask = Callable[[int, Sequence[Mapping[str, Any]]], None]


def finished_run(
    folder: Path, recipe: ExperimentRecipe, data: Path | None, seed: int
) -> dict[str, Any] | None:
    """Return the results of a run made before, ``None`` where there are none.

    :param folder: the run's folder.
    :param recipe: what the run must have been of.
    :param data: the data set's folder as the user gave it.
    :param seed: the seed it must have been made with.
    :raises ResultsError: when it is damaged, of another recipe or of another seed.
    """
    if not (folder / "results.json").is_file():
        return None
    results = read_results(folder)
    if updated_configuration(results["config"]) != run_configuration(recipe, data):
        raise ResultsError(
            f"{folder} holds a run of another recipe: remove it, or choose another "
            "--out"
        )
    if results["seed"] != seed:
        raise ResultsError(
            f"{folder} holds a run of seed {results['seed']}, not {seed}: remove it, "
            "or choose another --out"
        )
    return results


@dataclass
class _State:
    """What an interrupted run needs to go on; all of it goes into a checkpoint.

    ``options`` are the model's arguments, ``next`` the experience to learn next,
    ``csv_bytes`` the size of the metrics' file, ``ahead`` the evaluations of the
    experiences to come, ``untrained`` the values of the untrained model on them.
    """

    strategy: Any
    options: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0, "eval": 0})
    next: int = 0
    csv_bytes: int = 0
    ahead: list[dict[str, Any]] = field(default_factory=list)
    untrained: dict[str, list[float | None]] | None = None

    @property
    def metrics(self) -> AnomalyMetrics:
        return _only(AnomalyMetrics, self.strategy.evaluator.metrics)

    @property
    def logger(self) -> TidyCSVLogger:
        return _only(TidyCSVLogger, self.strategy.evaluator.loggers)


def _only(kind: type[Kind], every: Iterable[object]) -> Kind:
    """Return the one of a class, which every run has."""
    return next(one for one in every if isinstance(one, kind))


def run_experiment(
    recipe: ExperimentRecipe,
    out: Path,
    *,
    data_root: Path | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    cache: FeatureCache | None = None,
    progress: RunProgress | None = None,
    after_features: AfterFeatures | None = None,
    after_task: AfterTask | None = None,
) -> dict[str, Any]:
    """Train and evaluate a strategy on a stream, and save the run.

    After each experience the experiences seen so far are evaluated; with the recipe's
    ``forward_transfer`` the next one too, apart from them. The folder appears
    whole at the end, with ``results.json``, ``metrics.csv``, ``model.json`` and
    ``model.safetensors``; until then the run lives beside it as ``NAME.partial``, with
    a checkpoint per experience from which the same run resumes after an interruption.

    :param recipe: what to run.
    :param out: the run's folder; a finished run of the same recipe and seed is
        replaced, one of another recipe or seed and anything else is refused.
    :param data_root: the data set's folder.
    :param seed: decides the model's start and the order of minibatches.
    :param device: where to train.
    :param cache: the feature cache.
    :param progress: a progress bar.
    :param after_features: called when all features are there, with the number of calls
        of the backbone that it took: 0 when the cache had them all.
    :param after_task: called with the experience's index and its evaluation.
    :return: what ``results.json`` holds.
    :raises AvalancheADError: when data, recipe or folder are not as expected, or
        training breaks.
    """
    started, commit = time.perf_counter(), git_commit()
    check_strategy(recipe)
    device = device or torch.device("cpu")
    configuration = json.loads(json.dumps(run_configuration(recipe, data_root)))
    with run_folder(out) as folder:
        finished_run(out, recipe, data_root, seed)  # of another recipe: refused
        # the data first: a backbone may have to be downloaded
        data = open_data(recipe.benchmark, data_root)
        backbone = build_backbone(recipe.benchmark)
        identity = {
            "configuration": configuration,
            "seed": seed,
            "versions": {
                **package_versions(),
                "device": str(device),
                # one name, one file: its weights may be others than they were
                "features": features_id(backbone),
            },
        }
        checkpoint = load_checkpoint(folder.checkpoint)
        if checkpoint is not None and checkpoint["identity"] != identity:
            checkpoint = None
        benchmark = build_benchmark(
            recipe.benchmark,
            data,
            backbone,
            cache or FeatureCache(),
            device,
            progress.report if progress else None,
        )
        if after_features:
            after_features(backbone.calls)
        features = time.perf_counter() - started

        if checkpoint is None:
            # only now: a wrong command must not cost another run its checkpoint
            folder.clear()
            RNGManager.set_random_seeds(seed)
            state = _fresh_state(recipe, benchmark, device, folder, seed)
        else:
            state = checkpoint["state"]
            folder.cut_metrics(state.csv_bytes)
            state.logger.path = folder.metrics  # seen from where this run was started
            # last, because building a backbone draws random numbers
            restore_generators(checkpoint)
        _learn(recipe, benchmark, state, folder, identity, progress, after_task)

        seconds = {
            "features": features,
            **state.seconds,
            "total": features + sum(state.seconds.values()),
        }
        history = [*state.metrics.history, *state.ahead]
        results = {
            "schema": SCHEMA,
            "benchmark": recipe.benchmark_name,
            "strategy": recipe.strategy_name,
            "seed": seed,
            "categories": [list(names) for names in benchmark.experiences],
            "versions": identity["versions"],
            "config": configuration,
            "git": commit,
            **summarise(
                history,
                benchmark.experiences,
                metric_names(),
                baseline=state.untrained,
            ),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "peak_rss_mb": peak_rss_mb(),
            "memory_mb": memory_mb(
                state.strategy, benchmark, recipe.benchmark.features.dtype
            ),
        }
        _save_model(recipe, benchmark, state, folder)
        write_json(folder.partial / "results.json", results)
        folder.publish()
    return results


def _fresh_state(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    device: torch.device,
    folder: RunFolder,
    seed: int,
) -> _State:
    model, options = build_model(recipe.benchmark, benchmark, seed)
    strategy = build_strategy(
        recipe,
        model,
        device,
        [AnomalyMetrics(benchmark.category_names)],
        [TidyCSVLogger(folder.metrics)],
        benchmark.mask_size,
        [ProgressPlugin()],
    )
    return _State(strategy, options)


def _learn(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    state: _State,
    folder: RunFolder,
    identity: dict[str, Any],
    progress: RunProgress | None,
    after_task: AfterTask | None,
) -> None:
    """Learn the experiences that are left, one after the other or all at once."""
    strategy = state.strategy
    strategy.evaluator.active = True
    ticker = _only(ProgressPlugin, strategy.plugins)
    ticker.progress = progress
    if progress:
        steps = _training_steps(recipe, benchmark, strategy, state.next)
        progress.start("training", steps)

    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    joint = isinstance(strategy, JointTraining)
    ahead = recipe.benchmark.forward_transfer and not joint
    if ahead and state.untrained is None:
        began = time.perf_counter()
        state.untrained = untrained_values(
            strategy,
            benchmark,
            recipe.benchmark.training.calibration_images,
            metric_names(),
        )
        state.seconds["eval"] += time.perf_counter() - began
    for task in range(len(train) - 1 if joint else state.next, len(train)):
        learned = train if joint else [train[task]]
        ticker.what = "joint" if joint else f"experience {task + 1}/{len(train)}"
        began = time.perf_counter()
        strategy.train(learned if joint else learned[0], num_workers=0)
        trained = time.perf_counter()
        before = len(state.metrics.history)
        strategy.eval(test[: task + 1], num_workers=0)
        if ahead and task + 1 < len(test):
            future = evaluate_apart(
                strategy, strategy.model, benchmark, [test[task + 1]]
            )
            state.ahead += [{**row, "training_experience": task} for row in future]
        state.seconds["train"] += trained - began
        state.seconds["eval"] += time.perf_counter() - trained
        evaluated = state.metrics.history[before:]
        if after_task:
            after_task(task, evaluated)
        if task + 1 < len(train):
            state.next = task + 1
            state.csv_bytes = folder.metrics.stat().st_size
            save_checkpoint(folder.checkpoint, {"identity": identity, "state": state})


def _training_steps(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    strategy: Any,  # noqa: ANN401
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
    state: _State,
    folder: RunFolder,
) -> None:
    """Save the model with all that prediction needs."""
    last = len(benchmark.experiences) - 1
    calibration = _only(CalibrationPlugin, state.strategy.plugins)
    features = recipe.benchmark.features.model_dump(mode="json")
    if "weights" in features["options"]:
        # prediction may run in another folder
        weights = Path(features["options"]["weights"]).resolve()
        features["options"]["weights"] = str(weights)
    packnet = isinstance(state.strategy.model, PackNetFlowGMM)
    save_model(
        state.strategy.model,
        folder.partial,
        "packnet_flow_gmm" if packnet else recipe.benchmark.model.type,
        state.options,
        {
            "categories": list(benchmark.category_names),
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
        },
    )
