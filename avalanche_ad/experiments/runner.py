"""One run: a recipe in, a folder with results, metrics and the model out."""

from __future__ import annotations

import json
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.supervised import JointTraining
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader, Subset

from avalanche_ad import __version__
from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.errors import ResultsError
from avalanche_ad.evaluation.csv_logger import TidyCSVLogger
from avalanche_ad.evaluation.metrics import AnomalyMetrics
from avalanche_ad.evaluation.names import metric_names
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
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.progress_plugin import ProgressPlugin
from avalanche_ad.experiments.recipe import ExperimentRecipe
from avalanche_ad.experiments.results import SCHEMA, read_results, summarise, write_json
from avalanche_ad.features import FeatureCache
from avalanche_ad.models import AnomalyModel, FeatureGMM
from avalanche_ad.models.storage import save_model

__all__ = ["QUANTILE", "run_configuration", "run_experiment"]

QUANTILE = 0.95
"""Share of training normals below the ``quantile`` threshold of a category."""

AfterFeatures = Callable[[int], None]
AfterTask = Callable[[int, Sequence[Mapping[str, Any]]], None]


def run_configuration(recipe: ExperimentRecipe, data: str | None) -> dict[str, Any]:
    """Return all that decides a run's results, beside the seed, as JSON values.

    :param recipe: the merged recipe.
    :param data: the data set's folder as the user gave it.
    """
    configuration = recipe.model_dump(mode="json")
    # two recipes of one content give one result, wherever their files are
    configuration["data"] = data
    return configuration


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

    After each experience the experiences seen so far are evaluated. The folder appears
    whole at the end, with ``results.json``, ``metrics.csv``, ``model.json`` and
    ``model.safetensors``; until then the run lives beside it as ``NAME.partial``, with
    a checkpoint per experience from which the same run resumes after an interruption.

    :param recipe: what to run.
    :param out: the run's folder; one with another finished run is replaced, one with
        anything else is refused.
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
    started = time.perf_counter()
    check_strategy(recipe)
    device = device or torch.device("cpu")
    configuration = run_configuration(recipe, str(data_root) if data_root else None)
    configuration = json.loads(json.dumps(configuration))
    partial = _claim(out)
    lock = FileLock(partial / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ResultsError(
            f"{out}: another process is working on this run; wait for it, or choose "
            "another --out"
        ) from None
    try:
        identity = {
            "configuration": configuration,
            "seed": seed,
            "versions": _versions(),
        }
        checkpoint = _resumable(partial, identity)
        data = open_data(recipe.benchmark, data_root)
        backbone = build_backbone(recipe.benchmark)
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
        seconds = {"features": time.perf_counter() - started, "train": 0.0, "eval": 0.0}

        if checkpoint is None:
            # only now: a wrong command must not cost another run its checkpoint
            _clear(partial)
            RNGManager.set_random_seeds(seed)
            model, options = build_model(recipe.benchmark, benchmark, seed)
            ticker = ProgressPlugin()
            strategy = build_strategy(
                recipe,
                model,
                device,
                [AnomalyMetrics(benchmark.category_names)],
                [TidyCSVLogger(partial / "metrics.csv")],
                [ticker],
            )
            thresholds: dict[str, float] = {}
            first = 0
        else:
            strategy, options = checkpoint["strategy"], checkpoint["options"]
            thresholds, first = checkpoint["thresholds"], checkpoint["next"]
            seconds.update(checkpoint["seconds"])
            _keep_lines(partial / "metrics.csv", checkpoint["csv_bytes"])
            ticker = next(p for p in strategy.plugins if isinstance(p, ProgressPlugin))
            # last, because building a backbone draws random numbers
            restore_generators(checkpoint)
        metrics = next(
            metric
            for metric in strategy.evaluator.metrics
            if isinstance(metric, AnomalyMetrics)
        )
        strategy.evaluator.active = True
        ticker.progress = progress
        if progress:
            progress.start("training", _training_steps(recipe, benchmark, first))

        tasks = len(benchmark.train_stream)
        joint = isinstance(strategy, JointTraining)
        for task in range(tasks - 1 if joint else first, tasks):
            learned = list(benchmark.train_stream)[0 if joint else task : task + 1]
            ticker.what = "joint" if joint else f"experience {task + 1}/{tasks}"
            began = time.perf_counter()
            strategy.train(learned if joint else learned[0], num_workers=0)
            seconds["train"] += time.perf_counter() - began
            began = time.perf_counter()
            thresholds.update(_quantile_thresholds(strategy, benchmark, learned))
            before = len(metrics.history)
            strategy.eval(list(benchmark.test_stream)[: task + 1], num_workers=0)
            seconds["eval"] += time.perf_counter() - began
            for row in metrics.history[before:]:
                # Avalanche's joint training counts as the first experience
                row["training_experience"] = task
            if after_task:
                after_task(task, metrics.history[before:])
            if task + 1 < tasks:
                save_checkpoint(
                    partial / "checkpoint",
                    {
                        "identity": identity,
                        "strategy": strategy,
                        "options": options,
                        "thresholds": thresholds,
                        "next": task + 1,
                        "seconds": {k: seconds[k] for k in ("train", "eval")},
                        "csv_bytes": (partial / "metrics.csv").stat().st_size,
                    },
                )

        seconds["total"] = time.perf_counter() - started
        results = {
            "schema": SCHEMA,
            "benchmark": recipe.benchmark_name,
            "strategy": recipe.strategy_name,
            "seed": seed,
            "categories": [list(names) for names in benchmark.experiences],
            "versions": _versions(),
            "config": configuration,
            "git": _git_commit(),
            **summarise(metrics.history, benchmark.experiences, metric_names()),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "peak_rss_mb": _peak_rss_mb(),
            "memory_mb": _memory_mb(strategy, benchmark, recipe),
        }
        last = {
            row["category"]: row.get("image_threshold")
            for row in metrics.history
            if row["training_experience"] == tasks - 1
        }
        model = strategy.model
        save_model(
            model,
            partial,
            recipe.benchmark.model.type,
            options,
            {
                "categories": list(benchmark.category_names),
                "image_size": benchmark.image_size,
                "mask_size": benchmark.mask_size,
                "backbone": recipe.benchmark.features.model_dump(mode="json"),
                "thresholds": {"f1max": last, "quantile": thresholds},
                "quantile": QUANTILE,
            },
        )
        write_json(partial / "results.json", results)
        (partial / "checkpoint").unlink(missing_ok=True)
        lock.release()
        _publish(partial, out)
        return results
    except OSError as error:
        raise ResultsError(
            f"{partial}: cannot write the run ({error.strerror or error}): choose a "
            "writable --out with free space"
        ) from error
    finally:
        if lock.is_locked and not (partial / "checkpoint").exists():
            # not published, and nothing to resume from
            shutil.rmtree(partial, ignore_errors=True)
        lock.release()


def _claim(out: Path) -> Path:
    """Check that a run's folder may be written, and return the folder aside."""
    try:
        if out.exists():
            if not out.is_dir():
                raise ResultsError(f"{out} is a file: give a folder as --out")
            if any(out.iterdir()):
                _check_replaceable(out)
        if out.name in ("", ".."):
            raise ResultsError(f"{out}: give a new folder as --out, not this one")
        partial = out.with_name(out.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        probe = partial / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ResultsError(
            f"{out}: cannot write there ({error.strerror or error}): choose a writable "
            "--out"
        ) from error
    return partial


def _check_replaceable(out: Path) -> None:
    """Refuse a folder with anything but a run: a new run would replace it."""
    try:
        read_results(out)
    except ResultsError:
        raise ResultsError(
            f"{out} is not empty and holds no run (no valid results.json): "
            "give another folder as --out"
        ) from None


def _resumable(partial: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return the checkpoint of the same run, if there is one."""
    checkpoint = load_checkpoint(partial / "checkpoint")
    if checkpoint is not None and checkpoint["identity"] == identity:
        return checkpoint
    return None


def _clear(partial: Path) -> None:
    """Remove what another run left."""
    for path in partial.iterdir():
        if path.name != "run.lock":
            path.unlink()


def _publish(partial: Path, out: Path) -> None:
    """Move a finished run to its place; an older run there goes only then."""
    (partial / "run.lock").unlink(missing_ok=True)
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _keep_lines(path: Path, size: int) -> None:
    """Cut a CSV back to what it held at the checkpoint."""
    with path.open("rb+") as file:
        file.truncate(size)


def _training_steps(
    recipe: ExperimentRecipe, benchmark: AnomalyBenchmark, first: int
) -> int:
    """Estimate the number of training minibatches still to come."""
    size, epochs = (
        recipe.benchmark.training.batch_size,
        recipe.benchmark.training.epochs,
    )
    counts = [len(experience.dataset) for experience in benchmark.train_stream]
    if recipe.strategy.strategy.endswith("Cumulative"):
        counts = np.cumsum(counts).tolist()
    return max(1, sum(-(-count // size) * epochs for count in counts[first:]))


@torch.no_grad()
def _quantile_thresholds(
    strategy: Any,  # noqa: ANN401
    benchmark: AnomalyBenchmark,
    experiences: Sequence[Any],
    images: int = 64,
) -> dict[str, float]:
    """Return per learned category a quantile of its training normals' image scores."""
    model: AnomalyModel = strategy.model
    model.eval()
    mask_size = (benchmark.mask_size, benchmark.mask_size)
    thresholds = {}
    for experience in experiences:
        dataset = experience.dataset.eval()
        targets = np.asarray(list(dataset.targets))
        for category in np.unique(targets).tolist():
            index = np.flatnonzero(targets == category)[:images].tolist()
            scores = [
                model.score(model(batch[0].to(strategy.device)), mask_size).image.cpu()
                for batch in DataLoader(Subset(dataset, index), batch_size=16)
            ]
            value = torch.quantile(torch.cat(scores).double(), QUANTILE)
            thresholds[benchmark.category_names[category]] = float(value)
    return thresholds


def _memory_mb(
    strategy: Any,  # noqa: ANN401
    benchmark: AnomalyBenchmark,
    recipe: ExperimentRecipe,
) -> dict[str, float]:
    """Return what a strategy keeps of old data: exemplars and statistics, in MB."""
    assert benchmark.layout is not None
    width = np.dtype(recipe.benchmark.features.dtype).itemsize
    exemplars = sum(
        len(plugin.storage_policy.buffer)
        for plugin in strategy.plugins
        if hasattr(plugin, "storage_policy")
    )
    if recipe.strategy.strategy.endswith("Cumulative"):
        exemplars = sum(len(e.dataset) for e in list(benchmark.train_stream)[:-1])
    statistics = 0
    if isinstance(strategy.model, FeatureGMM):
        statistics = sum(
            buffer.numel() * buffer.element_size()
            for buffer in strategy.model.buffers()
        )
    return {
        "exemplars": round(exemplars * benchmark.layout.size * width / 1e6, 3),
        "statistics": round(statistics / 1e6, 3),
    }


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "timm", "numpy", "scikit-learn")
    return {
        "avalanche_ad": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("avalanche-lib", "FrEIA", *packages)},
    }


def _git_commit() -> str | None:
    """Return the commit of the checkout this package runs from, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None
