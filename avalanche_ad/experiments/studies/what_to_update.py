"""Which part of the model, trained on the next task, harms the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
from matplotlib.figure import Figure

from avalanche_ad.errors import TrainingError
from avalanche_ad.experiments.studies.bench import Bench, Measurements, flow_model_of
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.models.density_model import ScoreKind
from avalanche_ad.reporting.figures import draw_intervals, over_seeds
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section
from avalanche_ad.training.plugins import FrozenFlowPlugin, IncrementalMixturePlugin

PARTS = ("before", "neither", "mixture", "flow", "both")
KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)
MEASURES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "fpr95": "FPR at 95 % TPR",
    "normals": "normal images",
    "anomalies": "anomalous images",
}


def measure(bench: Bench, seed: int) -> Measurements:
    """Learn task 1, and the parts on task 2 in turn, each time from the same start.

    :raises TrainingError: for a strategy whose flow or mixture takes no gradient.
    """
    rows = []
    for number, part in enumerate(PARTS, 1):
        if part != "neither":  # which goes on from before
            # learned anew: what the strategy keeps besides the model belongs to it
            strategy = bench.strategy(seed)
            for plugin in strategy.plugins:
                if isinstance(plugin, (FrozenFlowPlugin, IncrementalMixturePlugin)):
                    raise TrainingError(
                        f"{type(plugin).__name__} takes the gradient from the flow or "
                        "the mixture, so they cannot be trained in turn: take a "
                        "strategy without it, such as naive"
                    )
            model = flow_model_of(strategy)
            for _ in bench.learn(strategy, last=0):
                pass
        if part == "neither":
            model.train().adaptation(bench.stream.train_stream[1])  # type: ignore[operator]
            bench.calibrate(model, bench.categories(1))
        elif part != "before":
            model.flows.requires_grad_(part in ("flow", "both"))
            for parameter in model.category_parameters():
                parameter.requires_grad_(part in ("mixture", "both"))
            for _ in bench.learn(strategy, 1, 1):
                pass
        for means, found in bench.summaries(model, [0], KINDS):
            rows.append(
                {
                    "part": part,
                    **means,
                    "normals": float(np.mean([o.normals.mean() for o in found])),
                    "anomalies": float(np.mean([o.anomalies.mean() for o in found])),
                }
            )
        bench.report("what to update", number, len(PARTS))
    return {"rows": rows}


def _of(found: Measurements, part: str, kind: str, metric: str) -> float | None:
    value: float | None = next(
        row[metric]
        for row in found["rows"]
        if (row["part"], row["kind"]) == (part, kind)
    )
    return value


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return what every part's training does to every score."""
    lines = [
        [
            part,
            kind,
            *[
                interval([_of(found, part, kind, name) for found in results]).text()
                for name in MEASURES
            ],
        ]
        for part in PARTS
        for kind in KINDS
    ]
    caption = (
        "Scores of task 1's test images: before task 2, with its centres added and "
        "nothing trained (neither), and after training the mixture alone, the flow "
        "alone, or both on it. The last two columns are mean image scores; those of "
        "the uncertainty are the entropy's. Means over seeds with 95 % confidence "
        "intervals."
    )
    head = ["trained", "score", *MEASURES.values()]
    return [Section("By the part that is trained", caption, head, lines, left=2)]


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw AUROC of every score for every part that is trained."""
    drawn = Figure(figsize=(9, 3.4), layout="constrained")
    grid = drawn.subplots(1, len(KINDS), sharex=True, sharey=True)
    for axes, kind in zip(grid, KINDS, strict=True):
        for offset, metric in ((-0.13, "image_auroc"), (0.13, "pixel_auroc")):
            found = [
                interval([_of(one, part, kind, metric) for one in results])
                for part in PARTS
            ]
            places = np.arange(len(PARTS)) + offset
            label = MEASURES[metric]
            draw_intervals(axes, places, found, True, linestyle="none", label=label)
        axes.axvline(0.5, color="0.3", lw=0.9, linestyle=":", label="chance")
        axes.set(title=kind, xlabel="AUROC of task 1")
        axes.grid(axis="x", alpha=0.3)
    grid[0].set_yticks(range(len(PARTS)), PARTS)
    grid[0].invert_yaxis()
    grid[0].set_ylabel("trained on task 2")
    handles, labels = axes.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    what = "Task 1 after training parts of the model on task 2"
    drawn.suptitle(f"{what} ({over_seeds(len(results))})", fontsize=11)
    return drawn


STUDY = Study(
    title="What to update",
    question=(
        "After task 1, task 2 is learned by the mixture alone, the flow alone, both or "
        "neither. Which of them harms task 1, and by which score?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
)
