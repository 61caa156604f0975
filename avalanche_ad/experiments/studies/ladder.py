"""The oracle ladder: how much of forgetting is spurious."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from avalanche_ad.evaluation.continual import difference
from avalanche_ad.experiments.studies.bench import (
    Bench,
    Measurements,
    flow_model_of,
    mean_pairs,
)
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.models.alignment.mixtures import AlignedCovariance
from avalanche_ad.models.evaluating import evaluating, seeded
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.reporting.figures import over_seeds, rows_figure
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section
from avalanche_ad.training.plugins.gmm_alignment import (
    drawn_latents,
    fitted_mixture,
)

RUNGS: dict[str, tuple[int, AlignedCovariance]] = {
    "mean, spherical": (1, "spherical"),
    "diagonal": (1, "diagonal"),
    "full": (1, "full"),
    "full, K = 10": (10, "full"),
}
LEARNED, FORGOTTEN, FRESH = "when learned", "after the last task", "full, when learned"


def measure(bench: Bench, seed: int) -> Measurements:
    """Learn the stream, then fit old categories' mixtures to their real images."""
    strategy = bench.strategy(seed)
    total = bench.tasks + len(RUNGS)
    learned, fresh = [], []
    for task in bench.learn(strategy):
        if task < bench.tasks - 1:
            model = flow_model_of(strategy)
            learned.append(bench.auroc(model, [task]))
            aligned = _aligned(bench, model, bench.seen(task), *RUNGS["full"], seed)
            fresh.append(bench.auroc(aligned, [task], "likelihood"))
        bench.report("ladder: learning", task + 1, total)
    model, old = flow_model_of(strategy), range(bench.tasks - 1)
    rows: dict[str, Any] = {
        LEARNED: mean_pairs(learned),
        FORGOTTEN: bench.auroc(model, old),
        "likelihood alone": bench.auroc(model, old, "likelihood"),
    }
    every = bench.seen(bench.tasks - 1)
    for number, (rung, form) in enumerate(RUNGS.items(), 1):
        aligned = _aligned(bench, model, every, *form, seed)
        rows[rung] = bench.auroc(aligned, old, "likelihood")
        bench.report("ladder", bench.tasks + number, total)
    rows[FRESH] = mean_pairs(fresh)
    return {"rows": {name: list(pair) for name, pair in rows.items()}}


def _aligned(
    bench: Bench,
    model: FlowModel,
    categories: Sequence[int],
    components: int,
    covariance: AlignedCovariance,
    seed: int,
) -> FlowModel:
    """Return a copy whose mixtures of categories are fitted to their real images."""
    aligned = copy.deepcopy(model)
    with evaluating(aligned), seeded(seed):
        room = aligned.num_categories
        for index, mixture in enumerate(aligned.alignment.start(components, room)):
            for category, x in bench.normals(categories).items():
                z = drawn_latents(aligned, index, x, 20_000)
                fitted = fitted_mixture(z, components, covariance, seed=seed)
                mixture.put(category, *fitted)
    bench.calibrate(aligned, categories)
    return aligned


def shares(results: Sequence[Measurements], rung: str, side: int) -> list[float | None]:
    """Return the share of forgetting that a rung recovers, one per seed.

    (rung − after the last task) / (when learned − after the last task).

    :param results: of :func:`measure`.
    :param rung: name of the rung.
    :param side: 0 for image AUROC, 1 for pixel AUROC.
    """
    found: list[float | None] = []
    for result in results:
        rows = result["rows"]
        lost = difference(rows[LEARNED][side], rows[FORGOTTEN][side])
        regained = difference(rows[rung][side], rows[FORGOTTEN][side])
        if regained is None or lost is None or lost <= 0:
            found.append(None)
        else:
            found.append(regained / lost)
    return found


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return the ladder with the share of forgetting that every rung recovers."""
    lines = []
    for name in results[0]["rows"]:
        cells = [name]
        for side in (0, 1):
            values = [found["rows"][name][side] for found in results]
            cells.append(interval(values).text())
            share = interval(shares(results, name, side)).text(2)
            cells.append(share if name in RUNGS else "")
        lines.append(cells)
    caption = (
        "Old categories after the last task. Rungs: their mixtures fitted to the "
        "latents of their real training images under the flow as it is then, scored by "
        "likelihood. Share: of what was forgotten (when learned less after the last "
        "task), which is spurious as far as a rung recovers it, since no rung trains "
        "the flow; above 1 the rung is better than the model was when it had just "
        f"learned. “{FRESH}” is the same fit right after each task. Means over seeds "
        "with 95 % confidence intervals."
    )
    head = ["", "image AUROC", "share", "pixel AUROC", "share"]
    return [Section("The ladder", caption, head, lines)]


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw the ladder."""

    def shown(name: str) -> str:
        return name.replace("K = 10", "10 Gaussians a category")

    names = list(results[0]["rows"])
    panels = {
        label: {
            shown(name): interval([one["rows"][name][side] for one in results])
            for name in names
        }
        for side, label in enumerate(("image AUROC", "pixel AUROC"))
    }
    groups = {
        "the model itself": [n for n in names if n not in (*RUNGS, FRESH)],
        "aligned after the last task": [shown(name) for name in RUNGS],
        "aligned right after each task": [FRESH],
    }
    title = f"Old categories aligned on their real images ({over_seeds(len(results))})"
    return rows_figure(panels, groups, title, (LEARNED, FORGOTTEN))


STUDY = Study(
    title="The oracle ladder",
    question=(
        "After the last task the mixtures of old categories are fitted anew to their "
        "real training images, the flow untouched: what comes back was not lost, only "
        "out of alignment. How much is it, and which covariance does it take?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
)
