"""What the flow of a finished ``gmm_alignment`` run is worth: its densities compared.

    python results/record/flow_worth.py RUN_FOLDER OUTPUT.md

Scores the test images by the mixtures aligned to the statistics (the run as it is), by
mixtures fitted by EM to where the flow maps all real training images, by the statistics
themselves, without the flow, and by the mean of the log-likelihoods with and without.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avalanche_ad.experiments.results import read_results
from avalanche_ad.experiments.studies.bench import Bench, open_bench
from avalanche_ad.models import AnomalyModel, FeatureGMM, FlowGMM
from avalanche_ad.models.evaluating import evaluating, seeded
from avalanche_ad.models.gaussians import fit_mixture, precision_roots
from avalanche_ad.models.latents import attach_latents, latents_of
from avalanche_ad.models.storage import load_model
from avalanche_ad.recipes import load_experiment
from avalanche_ad.reporting.tables import Section, sections_markdown
from avalanche_ad.training.plugins.gmm_alignment import drawn_latents

ROWS, STEPS = 5000, 4  # of the EM, as the statistics' own


class MeanOfTwo(AnomalyModel):
    """Score by the mean of two models' log-likelihoods of the same features."""

    def __init__(self, first: AnomalyModel, second: AnomalyModel) -> None:
        super().__init__(
            first.layout,
            "likelihood",
            first.smoothing_sigma,
            position_calibration=first.position_calibration,
        )
        self.both = torch.nn.ModuleList([first, second])

    @property
    def num_categories(self) -> int:
        """Those of the first."""
        return self.both[0].num_categories  # type: ignore[return-value]

    @property
    def known_categories(self) -> Tensor:
        """Those of the first."""
        return self.both[0].known_categories  # type: ignore[return-value]

    def resize(self, num_categories: int) -> None:
        """Do nothing: both are finished."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of the joint log-likelihoods."""
        outputs = [model(x) for model in self.both]
        return attach_latents(sum(outputs) / 2, [latents_of(o) for o in outputs])

    def log_likelihood_levels(self, latents: Any, category: Tensor) -> list[Tensor]:
        """Return the mean of the log-likelihoods, per level."""
        return self._mean("log_likelihood_levels", latents, category)

    def negative_entropy_levels(self, latents: Any, category: Tensor) -> list[Tensor]:
        """Return the mean of the negative entropies, per level."""
        return self._mean("negative_entropy_levels", latents, category)

    def _mean(self, what: str, latents: Any, category: Tensor) -> list[Tensor]:
        found = [
            getattr(model, what)(own, category)
            for model, own in zip(self.both, latents, strict=True)
        ]
        return [sum(levels) / 2 for levels in zip(*found, strict=True)]


def of_real_images(model: FlowGMM, bench: Bench, categories: list[int]) -> FlowGMM:
    """Return a copy with mixtures fitted by EM to all real images under the flow."""
    found = copy.deepcopy(model)
    components = model.alignment.statistics.components  # type: ignore[union-attr]
    with evaluating(found), seeded(0):
        for index, mixture in enumerate(
            found.alignment.start(components, found.num_categories)
        ):
            for category, x in bench.normals(categories).items():
                z = drawn_latents(found, index, x, ROWS)
                drawn = torch.Generator().manual_seed(category)
                fitted = fit_mixture(z, components, 1e-2, ROWS, drawn, 0, STEPS)
                kept = (fitted.weights_, fitted.means_, fitted.precisions_cholesky_)
                mixture.put(category, *map(torch.as_tensor, kept))  # type: ignore[operator]
    return found


def of_statistics(model: FlowGMM, categories: list[int]) -> FeatureGMM:
    """Return the statistics as a model of their own, without a flow."""
    kept = model.alignment.statistics
    assert kept is not None
    found = FeatureGMM(
        model.layout,
        components=kept.components,
        position_calibration=model.position_calibration,
    )
    for index in range(len(model.layout.levels)):
        for category in categories:
            own = kept.gaussians(index, category)
            assert own is not None
            roots = precision_roots(own.covariance.double())
            found.mixtures[index].put(category, own.weight, own.mean, roots)  # type: ignore[operator]
    return found


def scorers(
    model: FlowGMM, bench: Bench, categories: list[int]
) -> Iterator[tuple[str, AnomalyModel]]:
    """Yield what scores, and its name."""
    yield "flow, aligned to the statistics (the run)", model
    yield "flow, EM on all real images", of_real_images(model, bench, categories)
    features = of_statistics(model, categories)
    yield "no flow, the statistics themselves", features
    yield "mean of the first and the third", MeanOfTwo(model, features)


def main() -> None:
    """Score, and write the table."""
    run, target = Path(sys.argv[1]), Path(sys.argv[2])
    results = read_results(run)
    load = partial(load_experiment, results["benchmark"])
    bench = open_bench(load, results["strategy"], run)
    model, _ = load_model(run)
    assert isinstance(model, FlowGMM)
    categories = bench.seen(bench.tasks - 1)
    lines = []
    for name, scorer in scorers(model, bench, categories):
        scorer.eval()
        bench.calibrate(scorer, categories)
        image, pixel = bench.auroc(scorer, range(bench.tasks), "likelihood")
        lines.append([name, f"{image:.3f}", f"{pixel:.3f}"])
        print(*lines[-1], flush=True)
    head = ["scored by", "image AUROC", "pixel AUROC"]
    intro = (
        f"Stream `{results['benchmark']}`, strategy `{results['strategy']}`, seed "
        f"{results['seed']}, all categories after the last task."
    )
    caption = "The likelihood score, category inferred."
    table = Section("Densities of the same features", caption, head, lines)
    text = sections_markdown("What the flow is worth", intro, [table])
    target.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
