"""What a model is worth on experiences it has not learned, for forward transfer."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.evaluation.continual import mean_defined
from avalanche_ad.evaluation.metrics import AnomalyMetrics
from avalanche_ad.training.dynamic import features_by_category

__all__ = ["evaluate_apart", "untrained_values"]

Rows = list[dict[str, Any]]


def evaluate_apart(
    strategy: Any,
    model: nn.Module,
    metrics: AnomalyMetrics,
    experiences: Sequence[Any],
) -> Rows:
    """Evaluate a model without a trace in the strategy's metrics or random draws.

    :param strategy: lends optimizer, criterion, batch size and device.
    :param model: what to evaluate.
    :param metrics: what to measure; they are left as they are.
    :param experiences: test experiences.
    :return: :attr:`AnomalyMetrics.history`.
    """
    metrics = metrics.anew()
    probe = Naive(
        model=model,
        optimizer=strategy.optimizer,
        criterion=strategy._criterion,
        eval_mb_size=strategy.eval_mb_size,
        device=strategy.device,
        evaluator=EvaluationPlugin(metrics, loggers=[], strict_checks=False),
    )
    training = model.training
    with torch.random.fork_rng(devices=[]):
        probe.eval(list(experiences), num_workers=0)
    model.train(training)
    return metrics.history


def untrained_values(
    strategy: Any,
    benchmark: AnomalyBenchmark,
    images_per_category: int,
    metrics: AnomalyMetrics,
) -> dict[str, list[float | None]]:
    """Return what the untrained model is worth on every experience but the first.

    The categories of the first experience are started and calibrated, as after a
    training of no steps: the b_j of forward transfer (Lopez-Paz and Ranzato, NeurIPS
    2017).

    :param strategy: before it has learned anything; it is left as it is.
    :param benchmark: the stream.
    :param images_per_category: training images that the calibration sees.
    :param metrics: what to measure; they are left as they are.
    :return: metric → one value per experience, ``None`` for the first, and for a model
        that cannot score without training.
    """
    first, tests = benchmark.train_stream[0], list(benchmark.test_stream)
    values: dict[str, list[float | None]] = {name: [None] for name in metrics.names}
    with torch.random.fork_rng(devices=[]):
        model = deepcopy(strategy.model).to(strategy.device).train()
        model.adaptation(first)
        if len(model.known_categories):
            model.calibrate(
                (
                    x.to(strategy.device),
                    torch.full((len(x),), category, device=strategy.device),
                )
                for category, x in features_by_category(
                    first.dataset, images_per_category
                ).items()
            )
        known = len(model.known_categories)
        held = [test for test in tests[1:] if known and len(test.dataset)]
        rows = evaluate_apart(strategy, model, metrics, held) if held else []
    for task in range(1, len(tests)):
        own = [row for row in rows if row["experience"] == task]
        for name in metrics.names:
            values[name].append(mean_defined(row[name] for row in own))
    return values
