"""Compare strategies over seeds: one folder a run, finished runs are not run again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from avalanche_ad.errors import ResultsError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.recipe import ExperimentRecipe
from avalanche_ad.experiments.results import read_results
from avalanche_ad.experiments.runner import run_configuration, run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.reporting.tables import (
    comparison_csv,
    comparison_markdown,
    comparison_rows,
)

__all__ = ["compare"]


def compare(
    recipes: Sequence[ExperimentRecipe],
    seeds: Sequence[int],
    out: Path,
    *,
    data_root: Path | None = None,
    device: torch.device | None = None,
    cache: FeatureCache | None = None,
    progress: RunProgress | None = None,
    announce: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Run every recipe with every seed, and write the comparison.

    A run lives in ``OUT/STRATEGY-seedN``. One that is finished with the same recipe is
    read, not run again; one of another recipe is refused, not overwritten. Writes
    ``compare.md`` and ``compare.csv`` after every run.

    :param recipes: one per strategy, all of one benchmark.
    :param seeds: the seeds.
    :param out: the folder.
    :param announce: called with a line of text as work goes on.
    :return: all results, strategy by strategy.
    :raises AvalancheADError: as :func:`run_experiment`.
    """
    for recipe in recipes:
        check_strategy(recipe)
    total, done, results = len(recipes) * len(seeds), 0, []
    for recipe in recipes:
        for seed in seeds:
            done += 1
            folder = out / f"{recipe.strategy_name}-seed{seed}"
            what = f"[{done}/{total}] {recipe.strategy_name}, seed {seed}"
            if (folder / "results.json").is_file():
                result = read_results(folder)
                expected = run_configuration(recipe, data_root)
                if result["config"] != expected:
                    raise ResultsError(
                        f"{folder} holds a run of another recipe: remove it, or choose "
                        "another --out"
                    )
                announce(f"{what}: already there")
            else:
                announce(what)
                result = run_experiment(
                    recipe,
                    folder,
                    data_root=data_root,
                    seed=seed,
                    device=device,
                    cache=cache,
                    progress=progress,
                )
            results.append(result)
            rows = comparison_rows(results)
            try:
                (out / "compare.md").write_text(comparison_markdown(rows), "utf-8")
                (out / "compare.csv").write_text(comparison_csv(rows), "utf-8")
            except OSError as error:
                raise ResultsError(
                    f"{out}: cannot write the comparison there "
                    f"({error.strerror or error}): choose a writable --out"
                ) from error
    return results
