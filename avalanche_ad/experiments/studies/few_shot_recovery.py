"""Few-shot recovery: what a few old images and a few steps bring back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from avalanche_ad.errors import counted
from avalanche_ad.experiments.studies.bench import (
    Bench,
    Measurements,
    flow_model_of,
    mean_pairs,
)
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.reporting.figures import draw_intervals, over_seeds
from avalanche_ad.reporting.paired import Interval, interval
from avalanche_ad.reporting.tables import Section
from avalanche_ad.training import make_optimizer

EXEMPLARS = (0, 1, 4, 16)
STEPS = (0, 1, 10, 100)


def measure(bench: Bench, seed: int) -> Measurements:
    """Learn the whole stream, then train on with a few old images."""
    strategy = bench.strategy(seed)
    learned = []
    for task in bench.learn(strategy):
        if task < bench.tasks - 1:
            learned.append(bench.auroc(strategy.model, [task]))
        bench.report("few-shot recovery: learning", task + 1, bench.tasks)
    model = flow_model_of(strategy)
    last = bench.tasks - 1
    old = bench.seen(last - 1)
    runs = len(EXEMPLARS) * len(STEPS)
    rows: list[dict[str, Any]] = [
        _row("when learned", None, mean_pairs(learned)),
        _row("after the last task", None, bench.auroc(model, range(last))),
    ]
    for exemplars in EXEMPLARS:
        trained = copy.deepcopy(model)
        optimizer = _optimizer(bench, trained)
        generator = torch.Generator().manual_seed(seed)
        done = 0
        for steps in STEPS:
            for _ in range(steps - done):
                _step(bench, trained, optimizer, strategy, exemplars, generator)
            done = steps
            calibrated = copy.deepcopy(trained)
            kept = bench.normals(old) if exemplars else {}
            calibrated.calibrate(
                (part, torch.full((len(part),), category, device=part.device))
                for category, x in kept.items()
                for part in torch.split(x[:exemplars], 16)
            )
            rows.append(_row(exemplars, steps, bench.auroc(calibrated, range(last))))
            bench.report("few-shot recovery", len(rows) - 2, runs)
    return {"rows": rows}


def _row(exemplars: object, steps: int | None, pair: Any) -> dict[str, Any]:
    image, pixel = pair
    return {
        "exemplars": exemplars,
        "steps": steps,
        "image_auroc": image,
        "pixel_auroc": pixel,
    }


def _optimizer(bench: Bench, model: FlowModel) -> torch.optim.Optimizer:
    training = bench.recipe.benchmark.training
    return make_optimizer(
        model,
        training.lr,
        training.betas,
        training.weight_decay,
        training.centers_lr_factor,
    )


def _step(
    bench: Bench,
    model: FlowModel,
    optimizer: torch.optim.Optimizer,
    strategy: Any,
    exemplars: int,
    generator: torch.Generator,
) -> None:
    """Train one step on images of the last task, and as many old ones if there are."""
    size = bench.recipe.benchmark.training.batch_size
    last = bench.tasks - 1
    parts = [_drawn(bench, bench.categories(last), None, size, generator)]
    if exemplars:
        old = bench.seen(last - 1)
        parts.append(_drawn(bench, old, exemplars, size, generator))
    x, y = (torch.cat(side) for side in zip(*parts, strict=True))
    model.train()
    optimizer.zero_grad()
    strategy._criterion(model(x), y).backward()
    torch.nn.utils.clip_grad_norm_(
        model.parameters(), bench.recipe.benchmark.training.gradient_clip
    )
    optimizer.step()


def _drawn(
    bench: Bench,
    categories: Sequence[int],
    first: int | None,
    count: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images of categories, of the first so many of each."""
    kept = bench.normals(categories)
    x = torch.cat([features[:first] for features in kept.values()])
    y = torch.cat(
        [torch.full((len(f[:first]),), category) for category, f in kept.items()]
    )
    rows = torch.randint(len(x), (count,), generator=generator)
    return x[rows.to(x.device)], y[rows].to(x.device)


def _of(
    found: Measurements, exemplars: object, steps: int | None, metric: str
) -> float | None:
    value: float | None = next(
        row[metric]
        for row in found["rows"]
        if row["exemplars"] == exemplars and row["steps"] == steps
    )
    return value


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return AUROC of the old categories by exemplars and steps."""
    made = []
    for metric, name in (
        ("image_auroc", "Image AUROC"),
        ("pixel_auroc", "Pixel AUROC"),
    ):
        ends = [
            interval([_of(found, when, None, metric) for found in results]).text()
            for when in ("when learned", "after the last task")
        ]
        lines = [
            [
                str(exemplars),
                *[
                    interval(
                        [_of(found, exemplars, steps, metric) for found in results]
                    ).text()
                    for steps in STEPS
                ],
            ]
            for exemplars in EXEMPLARS
        ]
        caption = (
            f"When learned {ends[0]}, after the last task {ends[1]}. Rows: images kept "
            "of each old category; columns: steps of training on as many images of "
            "them as of the last task (with 0: of the last task alone). The scores' "
            "constants are set on the kept images."
        )
        head = ["images", *[counted(steps, "step") for steps in STEPS]]
        made.append(Section(f"{name} of old categories", caption, head, lines))
    return made


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw AUROC over steps, a line for every number of exemplars."""
    drawn = Figure(figsize=(9, 4.2), layout="constrained")
    pairs = (("image_auroc", "image AUROC"), ("pixel_auroc", "pixel AUROC"))
    grid = drawn.subplots(1, 2, sharey=True)
    for axes, (metric, name) in zip(grid, pairs, strict=True):

        def over(
            exemplars: object, steps: int | None, metric: str = metric
        ) -> Interval:
            return interval([_of(found, exemplars, steps, metric) for found in results])

        for number, exemplars in enumerate(EXEMPLARS):
            # beside each other, so that no interval hides another
            places = np.arange(len(STEPS)) + 0.1 * (number - 1.5)
            label = counted(exemplars, "image")
            values = [over(exemplars, steps) for steps in STEPS]
            draw_intervals(axes, places, values, label=label)
        for when, style in (("when learned", "--"), ("after the last task", ":")):
            value = over(when, None).mean
            if value is not None:
                axes.axhline(value, color="black", linestyle=style, lw=1, label=when)
        axes.set_xticks(range(len(STEPS)), [str(steps) for steps in STEPS])
        axes.set(xlabel="steps", title=name)
        axes.grid(axis="y", alpha=0.3)
    grid[0].set_ylabel("AUROC of old categories")
    handles, labels = grid[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=9)
    what = "Old categories after training on with a few of their images"
    drawn.suptitle(f"{what} ({over_seeds(len(results))})", fontsize=11)
    return drawn


STUDY = Study(
    title="Few-shot recovery",
    question=(
        "The whole stream is learned. Then training goes on for a few steps with a few "
        "images of every old category. How much comes back?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
)
