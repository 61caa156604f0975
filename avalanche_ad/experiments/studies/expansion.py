"""The expansion effect: what adding centres alone does to the scores."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import get_args

import numpy as np
from matplotlib.figure import Figure

from avalanche_ad.errors import TrainingError
from avalanche_ad.experiments.studies.bench import Bench, Measurements, flow_model_of
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.models.density_model import ScoreKind
from avalanche_ad.models.scoped_entropy import ENTROPY_SCOPES, ScopedEntropy
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section, number

KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)


def measure(bench: Bench, seed: int) -> Measurements:
    """Score task 1 before and after the centres of task 2 came, the flow untouched."""
    strategy = bench.strategy(seed)
    if not isinstance(flow_model_of(strategy), ScopedEntropy):
        raise TrainingError(
            "this experiment sets which categories a model's entropy is over, and "
            f"{strategy.model.kind} has no such setting: take the flow of a benchmark "
            "that comes with the package"
        )
    for _ in bench.learn(strategy, last=0):
        bench.report("expansion", 1, 2)
    before = copy.deepcopy(flow_model_of(strategy))
    after = copy.deepcopy(before).train()
    after.adaptation(bench.stream.train_stream[1])  # type: ignore[operator]
    rows = []
    for scope in ENTROPY_SCOPES:
        for model in (before, after):
            assert isinstance(model, ScopedEntropy)
            model.entropy = scope
        # the constants are of the product of both, and of scores of before
        for moment, model in (("before", before), ("after", after)):
            for means, found in bench.summaries(model, [0], KINDS):
                normals = np.concatenate([one.normals for one in found])
                anomalies = np.concatenate([one.anomalies for one in found])
                rows.append(
                    {
                        "scope": scope,
                        "moment": moment,
                        **means,
                        "normals": normals.tolist(),
                        "anomalies": anomalies.tolist(),
                    }
                )
    return {"rows": rows}


def _pick(found: Measurements, scope: str, kind: str, moment: str) -> Measurements:
    row: Measurements = next(
        row
        for row in found["rows"]
        if (row["scope"], row["kind"], row["moment"]) == (scope, kind, moment)
    )
    return row


def _mean(values: Sequence[float | list[float] | None]) -> float | None:
    """Return the mean over seeds of a value, or of the mean of several."""
    known = [float(np.mean(value)) for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return means over seeds, before → after, and the change with its interval."""
    lines = []
    for scope in ENTROPY_SCOPES:
        for kind in KINDS:
            pairs = [
                tuple(
                    _pick(found, scope, kind, moment) for moment in ("before", "after")
                )
                for found in results
            ]

            def both(
                name: str, pairs: Sequence[tuple[Measurements, ...]] = pairs
            ) -> str:
                sides = zip(*[[side[name] for side in p] for p in pairs], strict=True)
                return " → ".join(number(_mean(side)) for side in sides)

            changes = [
                after["image_auroc"] - before["image_auroc"] for before, after in pairs
            ]
            lines.append(
                [
                    scope,
                    kind,
                    both("image_auroc"),
                    interval(changes).text(sign="+"),
                    both("pixel_auroc"),
                    both("fpr95"),
                    both("normals"),
                    both("anomalies"),
                ]
            )
    head = [
        "entropy over",
        "score",
        "image AUROC",
        "its change",
        "pixel AUROC",
        "FPR at 95 % TPR",
        "normal images",
        "anomalous images",
    ]
    caption = (
        "Task 1's categories before → after the centres of task 2 came; the last two "
        "columns are mean image scores. Change: mean over seeds with its 95 % "
        "confidence interval."
    )
    return [Section("Before and after", caption, head, lines, left=2)]


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw the product scores of normal and anomalous images before and after."""
    drawn = Figure(figsize=(9, 4.6), layout="constrained")
    moments, parts = ("before", "after"), ("normals", "anomalies")
    picked = {
        (scope, moment, part): np.concatenate(
            [_pick(found, scope, "product", moment)[part] for found in results]
        )
        for scope in ENTROPY_SCOPES
        for moment in moments
        for part in parts
    }
    edges = np.histogram_bin_edges(np.concatenate(list(picked.values())), 40)
    grid = drawn.subplots(
        2, len(ENTROPY_SCOPES), sharex=True, sharey=True, squeeze=False
    )
    for column, scope in enumerate(ENTROPY_SCOPES):
        for axes, moment in zip(grid[:, column], moments, strict=True):
            for part in parts:
                axes.hist(picked[scope, moment, part], edges, alpha=0.6, label=part)
        grid[0, column].set_title(f"entropy: {scope}", fontsize=10)
        grid[1, column].set_xlabel("product score")
    for axes, moment in zip(grid[:, 0], moments, strict=True):
        axes.set_ylabel(f"images, {moment}")
    grid[0, 0].legend()
    drawn.suptitle("Adding centres alone, the flow untouched")
    return drawn


STUDY = Study(
    title="The expansion effect",
    question=(
        "Task 1 is learned; then the centres of task 2 are added, and nothing is "
        "trained. What do the scores of task 1's test images do, with the entropy over "
        "all categories known, over those known when a category was learned, and "
        "divided by log C?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
)
