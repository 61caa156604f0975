"""How well categories are inferred, and what knowing them would change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from avalanche_ad.evaluation.continual import mean_defined
from avalanche_ad.experiments.studies.bench import Bench, Measurements
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.reporting.figures import draw_intervals, over_seeds
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section

MEASURES = {
    "accuracy": "category accuracy",
    "image_auroc": "image AUROC",
    "image_auroc_oracle": "image AUROC (oracle)",
    "pixel_auroc": "pixel AUROC",
    "pixel_auroc_oracle": "pixel AUROC (oracle)",
}
PANELS = ("accuracy", "image_auroc", "pixel_auroc")


def measure(bench: Bench, seed: int) -> Measurements:
    """Evaluate all categories seen so far after every task, inferred and given."""
    strategy = bench.strategy(seed)
    rows = []
    for task in bench.learn(strategy):
        for learned in range(task + 1):
            agnostic = bench.evaluate(strategy.model, [learned])
            oracle = bench.evaluate(strategy.model, [learned], oracle=True)
            for one, given in zip(agnostic, oracle, strict=True):
                rows.append(
                    {
                        "after": task,
                        "since": task - learned,
                        "category": bench.stream.category_names[one.category],
                        "accuracy": one.accuracy,
                        "image_auroc": one.image_auroc,
                        "image_auroc_oracle": given.image_auroc,
                        "pixel_auroc": one.pixel_auroc,
                        "pixel_auroc_oracle": given.pixel_auroc,
                    }
                )
        bench.report("category inference", task + 1, bench.tasks)
    return {"rows": rows}


def _of(found: Measurements, since: int, metric: str) -> float | None:
    return mean_defined(row[metric] for row in found["rows"] if row["since"] == since)


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return accuracy and AUROC by the number of tasks since a category was learned."""
    longest = max(row["since"] for row in results[0]["rows"])
    lines = [
        [
            str(since),
            *[
                interval([_of(found, since, metric) for found in results]).text()
                for metric in MEASURES
            ],
        ]
        for since in range(longest + 1)
    ]
    caption = (
        "Means over the categories learned so many tasks before; oracle: the score is "
        "given the category. Means over seeds with 95 % confidence intervals."
    )
    head = ["tasks since", *MEASURES.values()]
    return [Section("By age", caption, head, lines)]


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw accuracy and AUROC over the tasks since a category was learned."""
    drawn = Figure(figsize=(9, 3.6), layout="constrained")
    longest = max(row["since"] for row in results[0]["rows"])
    grid = drawn.subplots(1, 3, sharex=True, sharey=True)
    for axes, metric in zip(grid, PANELS, strict=True):
        ways = [key for key in (metric, f"{metric}_oracle") if key in MEASURES]
        for number, key in enumerate(ways):
            values = [
                interval([_of(found, since, key) for found in results])
                for since in range(longest + 1)
            ]
            # beside each other, so that neither hides the other
            places = np.arange(longest + 1) + (0.16 * number - 0.08) * (len(ways) > 1)
            draw_intervals(axes, places, values, label=("inferred", "given")[number])
        axes.set(xlabel="tasks since it was learned", title=MEASURES[metric])
        axes.set_xticks(range(longest + 1))
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("accuracy or AUROC")
    axes.legend(title="category")
    what = "Category inferred or given"
    drawn.suptitle(f"{what} ({over_seeds(len(results))})", fontsize=11)
    return drawn


STUDY = Study(
    title="Category inference",
    question=(
        "Is the category of an image still inferred when later tasks have been "
        "learned, and how much better would scores be if it were given?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
)
