"""How fast categories are learned, and what training the first task longer costs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from avalanche.core import SupervisedPlugin
from matplotlib.figure import Figure

from avalanche_ad.evaluation.continual import difference
from avalanche_ad.experiments.studies.bench import (
    Bench,
    Measurements,
    flow_model_of,
    mean_pairs,
)
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.reporting.figures import draw_intervals, over_seeds
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section

LOOKS = 6
FACTORS = (0.25, 1.0, 4.0)


class _Curve(SupervisedPlugin):  # type: ignore[misc]
    """Evaluate the categories of the task that is learned, a few times while it is."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.task = 0
        self.rows: list[dict[str, Any]] = []

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Note the AUROC of every category of the task."""
        epoch, total = strategy.clock.train_exp_epochs + 1, strategy.train_epochs
        wanted = {max(1, round(total * look / LOOKS)) for look in range(1, LOOKS + 1)}
        if epoch not in wanted:
            return
        model = copy.deepcopy(flow_model_of(strategy))
        self.bench.calibrate(model, self.bench.categories(self.task))
        for one in self.bench.evaluate(model, [self.task]):
            self.rows.append(
                {
                    "task": self.task,
                    "category": self.bench.stream.category_names[one.category],
                    "share": epoch / total,
                    "image_auroc": one.image_auroc,
                    "pixel_auroc": one.pixel_auroc,
                }
            )


def measure(bench: Bench, seed: int) -> Measurements:
    """Learn the stream with the first task trained shorter, as long, and longer."""
    epochs = bench.recipe.benchmark.training.epochs
    total = len(FACTORS) * bench.tasks
    found: Measurements = {"curves": [], "lengths": []}
    for number, factor in enumerate(FACTORS):
        curve = _Curve(bench)
        strategy = bench.strategy(seed, [curve] if factor == 1 else [])
        flow_model_of(strategy)
        strategy.train_epochs = max(1, round(factor * epochs))
        learned = []
        for task in bench.learn(strategy):
            learned.append(bench.auroc(strategy.model, [task]))
            strategy.train_epochs = epochs
            curve.task = task + 1
            bench.report("convergence", number * bench.tasks + task + 1, total)
        last = bench.auroc(strategy.model, [0])
        found["lengths"].append(
            {
                "factor": factor,
                "learned": learned[0],
                "forgotten": [
                    difference(a, b) for a, b in zip(learned[0], last, strict=True)
                ],
                "later": mean_pairs(learned[1:]),
            }
        )
        if factor == 1:
            found["curves"] = curve.rows
    return found


def _lengths(
    results: Sequence[Measurements], factor: float, key: str, side: int
) -> str:
    values = [
        row[key][side]
        for found in results
        for row in found["lengths"]
        if row["factor"] == factor
    ]
    return interval(values).text()


def _shares(found: Measurements) -> list[float]:
    return sorted({row["share"] for row in found["curves"]})


def _of(results: Sequence[Measurements], name: str, share: float) -> list[float | None]:
    return [
        row["image_auroc"]
        for found in results
        for row in found["curves"]
        if (row["category"], row["share"]) == (name, share)
    ]


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return the effect of the first task's length, and every category's speed."""
    lines = [
        [
            f"{factor:g} x",
            *[
                _lengths(results, factor, key, side)
                for key in ("learned", "forgotten", "later")
                for side in (0, 1)
            ],
        ]
        for factor in FACTORS
    ]
    head = ["epochs of task 1"] + [
        f"{side} {what}"
        for what in ("when learned", "forgetting", "of later tasks when learned")
        for side in ("image", "pixel")
    ]
    caption = (
        "Task 1 trained shorter or longer, all others as the recipe says: its AUROC "
        "when learned, its forgetting after the last task (positive = forgot), and the "
        "AUROC of the other tasks when each was learned. Means over seeds with 95 % "
        "confidence intervals."
    )
    made = [Section("Length of the first task", caption, head, lines)]
    shares = _shares(results[0])
    lines = []
    for name in dict.fromkeys(row["category"] for row in results[0]["curves"]):
        values = [
            [
                row["image_auroc"]
                for found in results
                for row in found["curves"]
                if (row["category"], row["share"]) == (name, share)
            ]
            for share in shares
        ]
        task = next(
            row["task"] for row in results[0]["curves"] if row["category"] == name
        )
        cells = [interval(of_share).mean for of_share in values]
        lines.append(
            [
                name,
                str(task + 1),
                *[f"{cell:.3f}" if cell is not None else "–" for cell in cells],
            ]
        )
    head = ["category", "task", *[f"{share:.0%} of the epochs" for share in shares]]
    caption = "Image AUROC while a category's own task is learned, mean over seeds."
    made.append(Section("Speed of every category", caption, head, lines, left=1))
    return made


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw the curve of every category, a panel for every task."""
    tasks = sorted({row["task"] for row in results[0]["curves"]})
    drawn = Figure(figsize=(1.8 * len(tasks) + 0.6, 3.8), layout="constrained")
    grid = drawn.subplots(1, len(tasks), sharex=True, sharey=True, squeeze=False)
    shares = _shares(results[0])
    for axes, task in zip(grid.flat, tasks, strict=True):
        rows = [row for row in results[0]["curves"] if row["task"] == task]
        for name in dict.fromkeys(row["category"] for row in rows):
            values = [interval(_of(results, name, share)) for share in shares]
            draw_intervals(axes, shares, values, label=name)
        axes.set(title=f"task {task + 1}", xlabel="share of epochs")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    grid[0, 0].set_ylabel("image AUROC")
    drawn.suptitle(f"Speed of every category ({over_seeds(len(results))})", fontsize=11)
    return drawn


STUDY = Study(
    title="Convergence",
    question=(
        "How fast is every category of a task learned, and how far does the length of "
        "the first task's training set its later forgetting and the start of the "
        "others?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
)
