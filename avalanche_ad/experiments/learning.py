"""The loop of a run: learn, evaluate, keep a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from avalanche.training.supervised import Cumulative, JointTraining

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.experiments.checkpoint_plugin import (
    CheckpointPlugin,
    finish_training,
)
from avalanche_ad.experiments.forward import evaluate_apart, untrained_values
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.progress_plugin import ProgressPlugin
from avalanche_ad.experiments.run_state import (
    Checkpoints,
    RunState,
    only,
)
from avalanche_ad.recipes import ExperimentRecipe
from avalanche_ad.training.plugins.step_limit import limited_epochs

AfterTask = Callable[[int, Sequence[Mapping[str, Any]]], None]
"""Called with the index of an experience and its evaluation."""

__all__ = ["learn"]


def learn(
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
        if ahead and task + 1 < len(train) and len(test[task + 1].dataset):
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
    stream = benchmark.train_stream
    counts = np.array([len(experience.dataset) for experience in stream])
    categories = np.array([len(e.classes_in_this_experience) for e in stream])
    if isinstance(strategy, Cumulative):
        counts, categories = counts.cumsum(), categories.cumsum()
    steps = 0
    for count, own in zip(counts[first:], categories[first:], strict=True):
        batches, epochs = -(-int(count) // training.batch_size), training.epochs
        if limit := training.max_steps_per_category:
            epochs = limited_epochs(epochs, limit, int(own), batches)
        steps += batches * epochs
    return max(1, steps)
