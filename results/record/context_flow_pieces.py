"""What the pieces of finished ``context_flow`` runs see of defects, alone and together.

    python results/record/context_flow_pieces.py OUTPUT.md RUN… --data DIR…

Flow and critic share no parameter and no loss, so a run without one of them would have
trained the other to the same: it is left out of the finished model, whose scores are
calibrated anew. Means over the runs, which are seeds of one stream.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from avalanche_ad.experiments.results import read_results
from avalanche_ad.experiments.studies.bench import open_bench
from avalanche_ad.models import ContextFlowGMM
from avalanche_ad.models.storage import load_model
from avalanche_ad.recipes import load_experiment
from avalanche_ad.reporting.tables import Section, sections_markdown

PIECES = {
    "": {
        "positions": "likelihood",
        "flow and critic": "context",
        "positions, flow and critic": "product_with_context",
    },
    "critic": {"flow": "context", "positions and flow": "product_with_context"},
    "flow": {"critic": "context", "positions and critic": "product_with_context"},
}
"""Scores by name, of a model without a piece."""


def silent(index: int, x: Tensor, code: Tensor | None) -> Tensor:
    """Say nothing of any position."""
    return x.new_zeros(x.shape[:3])


def without(model: ContextFlowGMM, piece: str) -> ContextFlowGMM:
    """Return a copy that lacks the critics, the flows or nothing."""
    found = copy.deepcopy(model)
    for ensemble in found.categories.values():
        for own in ensemble.networks:
            if piece == "critic":
                own.critics = nn.ModuleList()
            if piece == "flow":
                own.by_flow = silent  # type: ignore[method-assign]
    return found.eval()


def scores_of(run: Path, roots: list[Path]) -> dict[str, tuple[float, float]]:
    """Return image and pixel AUROC of a run's pieces after the last task."""
    results = read_results(run)
    load = partial(load_experiment, results["benchmark"])
    bench = open_bench(load, results["strategy"], run, roots)
    model, _ = load_model(run)
    assert isinstance(model, ContextFlowGMM)
    categories, tasks = bench.seen(bench.tasks - 1), range(bench.tasks)
    found = {}
    for piece, kinds in PIECES.items():
        scorer = without(model, piece)
        if piece:
            bench.calibrate(scorer, categories)
        for name, kind in kinds.items():
            image, pixel = bench.auroc(scorer, tasks, kind)
            found[name] = (image, float("nan") if pixel is None else pixel)
            print(f"{run}:", name, *(f"{one:.3f}" for one in found[name]), flush=True)
    return found


def main() -> None:
    """Score every run, and write the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, action="append", default=[])
    given = parser.parse_args()
    every = [scores_of(run, given.data) for run in given.runs]
    lines = []
    for name in sorted(every[0], key=lambda name: (name.count(" "), name)):
        means = [sum(one[name][k] for one in every) / len(every) for k in (0, 1)]
        lines.append([name, *(f"{mean:.3f}" for mean in means)])
    results = read_results(given.runs[0])
    intro = (
        f"Stream `{results['benchmark']}`, {len(every)} seeds, all categories after "
        "the last task, category inferred."
    )
    head = ["scored by", "image AUROC", "pixel AUROC"]
    caption = "A piece that is left out of the finished model; scores calibrated anew."
    section = Section("With and without each piece", caption, head, lines)
    text = sections_markdown("The pieces of `context_flow`", intro, [section])
    given.output.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
