"""``avalanche-ad experiment``: a controlled experiment on forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from avalanche_ad.cli.options import (
    Benchmark,
    CacheFolder,
    Data,
    Device,
    Overrides,
    Seeds,
    Strategy,
    Threads,
    limit_threads,
    open_cache,
    seed_numbers,
    used_folders,
)
from avalanche_ad.cli.output import err, print_table, say
from avalanche_ad.cli.output import out as output

if TYPE_CHECKING:
    from avalanche_ad.recipes import ExperimentRecipe


def experiment(
    name: Annotated[
        str, typer.Argument(help="Which one; `list experiments` shows all.")
    ],
    benchmark: Benchmark = "synthetic_5x3",
    strategy: Strategy = "naive",
    seeds: Seeds = "0",
    data: Data = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of its files [runs/BENCHMARK/experiments]."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
    cache: CacheFolder = None,
    overrides: Overrides = None,
) -> None:
    """Measure what is forgotten and why: a controlled experiment with its figure."""
    limit_threads(threads)
    from avalanche_ad.recipes import load_experiment

    numbers = seed_numbers(seeds)

    def load(strategy: str) -> ExperimentRecipe:
        return load_experiment(benchmark, strategy, overrides or [])

    recipe = load(strategy)
    roots = used_folders(data, recipe)
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.progress import RunProgress
    from avalanche_ad.experiments.studies import find_study
    from avalanche_ad.experiments.studies.study import run_study
    from avalanche_ad.reporting.tables import terminal_table

    study = find_study(name)
    folder = out or Path("runs") / recipe.benchmark_name / "experiments"
    say(f"{study.title} · {recipe.benchmark.title} · {recipe.strategy.title}")
    with RunProgress(err) as progress:
        sections = run_study(
            study,
            name,
            load,
            strategy,
            numbers,
            folder,
            data_root=roots,
            device=pick_device(device, threads),
            cache=open_cache(cache),
            progress=progress,
            announce=say,
        )
    for section in sections:
        print_table(terminal_table(section))
        output.print(section.caption, soft_wrap=True)
    say(f"written: {folder}/{name}.md and {name}.png")
