"""Which maps a flow can learn a category from: real ones, or what is drawn for them.

    python results/record/drawn_maps.py OUTPUT.md BENCHMARK STEPS SEED --data DIR…

For each category of the benchmark's first task a flow is trained by ``context_flow``'s
objective on real feature maps, and on maps drawn from what could be kept of them. Test
images are scored by each; densities, alignment of the inputs and calibration are of the
real images in every case, so that the flow alone differs.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from avalanche_ad.experiments.studies.bench import Bench, open_bench
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import ContextFlowGMM
from avalanche_ad.models.context_flow.alignment import InputAlignment
from avalanche_ad.models.context_flow.networks import CategoryNetworks
from avalanche_ad.models.evaluating import evaluating
from avalanche_ad.models.gaussians.place_statistics import PlaceStatistics
from avalanche_ad.recipes import load_experiment
from avalanche_ad.reporting.tables import Section, sections_markdown
from avalanche_ad.training.plugins.feature_statistics_replay import GaussianStatistics

BATCH = 8
MODES = 32  # of whole maps
Draw = Callable[[int], Tensor]
"""Gives feature maps (N, size) of a category."""

OBJECTIVES = {
    "By likelihood": {"kernel": 3, "contrast_weight": 0.0, "likelihood_weight": 1.0},
    "Told from noise": {"kernel": 3},
}
"""Options of the flow, by name."""
CAPTION = "A flow whose networks see 3x3 positions, by itself and with the Gaussians."


class MapGaussian:
    """A Gaussian of whole maps: a mean, few modes, and a residual at each position.

    x = μ + Σ_k a_k u_k + r, a_k ~ N(0, λ_k), r_p ~ N(0, Σ_c(p)): modes u_k are the
    first principal components of the maps, so neighbours agree in what they explain;
    the residuals are as :class:`PlaceStatistics` draws them.
    """

    def __init__(self, layout: FeatureLayout, x: Tensor, modes: int) -> None:
        self.mean = x.mean(0)
        centred = x - self.mean
        _, deviations, vectors = torch.linalg.svd(centred, full_matrices=False)
        self.vectors = vectors[:modes]
        self.deviations = deviations[:modes] / max(1, len(x) - 1) ** 0.5
        self.rest = PlaceStatistics(layout, 1)
        rest = centred - centred @ self.vectors.T @ self.vectors
        self.rest.fit_category(0, rest)

    def draw(self, count: int) -> Tensor:
        """Return maps (count, size)."""
        loads = torch.randn(count, len(self.deviations)) * self.deviations
        rest = self.rest.sample(torch.zeros(count, dtype=torch.long))
        return self.mean + loads @ self.vectors + rest


def sources(layout: FeatureLayout, x: Tensor) -> dict[str, Draw]:
    """Return what draws maps, by name."""
    kept = PlaceStatistics(layout, 1)
    kept.fit_category(0, x)
    found: dict[str, Draw] = {
        "real maps": lambda count: x[torch.randint(len(x), (count,))],
        "each position by its Gaussian": lambda count: kept.sample(
            torch.zeros(count, dtype=torch.long)
        ),
    }
    modes = MapGaussian(layout, x, MODES)
    found[f"{MODES} modes of the map, the rest by position"] = modes.draw
    alone = GaussianStatistics(MODES)
    alone.update(x)
    found[f"{MODES} modes of the map, the rest by feature"] = alone.sample
    return found


def of_flow(model: ContextFlowGMM, category: int) -> Draw:
    """Return what draws maps from a trained category's flow: z ~ N(0, I), inverted."""
    (own,) = model.categories[str(category)]
    assert isinstance(own, CategoryNetworks)

    @torch.no_grad()
    def draw(count: int) -> Tensor:
        parts = []
        for index, shape in enumerate(model.layout.levels):
            alignment = model.alignments[index]
            assert isinstance(alignment, InputAlignment)
            code = model.get_buffer(f"code_{index}")
            z = torch.randn(count, *shape)
            aligned = own.flows[index].inverse(z, code)
            back = torch.linalg.inv(alignment.matrices[category])
            parts.append((aligned @ back + alignment.means[category]).flatten(1))
        return torch.cat(parts, 1)

    return draw


def trained(
    start: ContextFlowGMM, draws: dict[int, Draw], steps: int, seed: int
) -> ContextFlowGMM:
    """Return a copy whose flows are trained on what is drawn."""
    model = copy.deepcopy(start).train()
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.categories.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        for category, draw in draws.items():
            x = draw(BATCH)
            model.loss(model(x), torch.full((BATCH,), category)).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.categories.parameters(), 100.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def rows(bench: Bench, options: dict[str, float], steps: int, seed: int) -> list:
    """Return name and AUROC of each source, for one objective."""
    categories = bench.categories(0)
    normals = bench.normals(categories)
    layout = bench.stream.layout
    start = ContextFlowGMM(layout, networks=1, critic=0, seed=seed, **options)
    start.add_categories(categories, normals)
    every = {c: sources(layout, x) for c, x in normals.items()}
    names = list(dict.fromkeys(name for found in every.values() for name in found))
    found = []

    def score(name: str, model: ContextFlowGMM) -> None:
        with evaluating(model):
            bench.calibrate(model, categories)
            numbers = [
                value
                for kind in ("context", "product_with_context")
                for value in bench.auroc(model, [0], kind)
            ]
        line = [name, *(f"{value:.3f}" for value in numbers if value is not None)]
        print(options, *line, flush=True)
        found.append(line)

    score("the flow as it starts", start.eval())
    for name in names:
        known = {c: draws[name] for c, draws in every.items() if name in draws}
        model = trained(start, known, steps, seed)
        score(name, model)
        if name == "real maps":
            of_first = {c: of_flow(model, c) for c in categories}
    score(
        "maps drawn from the flow of real ones", trained(start, of_first, steps, seed)
    )
    return found


def main() -> None:
    """Train on every kind of maps, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("benchmark")
    parser.add_argument("steps", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--data", type=Path, action="append", default=[])
    given = parser.parse_args()
    load = partial(load_experiment, given.benchmark)
    bench = open_bench(load, "context_flow", given.output.parent, given.data)
    head = ["trained on", "flow: image", "pixel", "with positions: image", "pixel"]
    sections = [
        Section(name, CAPTION, head, rows(bench, options, given.steps, given.seed))
        for name, options in OBJECTIVES.items()
    ]
    names = ", ".join(bench.stream.category_names[c] for c in bench.categories(0))
    intro = (
        f"{names}: {given.steps} steps of {BATCH} maps a category, seed {given.seed}; "
        "image and pixel AUROC, mean over the categories, category inferred."
    )
    text = sections_markdown("Which maps a flow can learn from", intro, sections)
    given.output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
