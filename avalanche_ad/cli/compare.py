"""``avalanche-ad compare``: strategies over seeds, in tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from avalanche_ad.cli.options import (
    Benchmark,
    CacheFolder,
    Data,
    Device,
    Overrides,
    Seeds,
    Threads,
    limit_threads,
    open_cache,
    refuse_repeated,
    seed_numbers,
    used_folders,
)
from avalanche_ad.cli.output import err, print_table, say
from avalanche_ad.cli.output import out as output
from avalanche_ad.errors import RecipeError, counted


def compare(
    strategies: Annotated[
        str, typer.Option(help="Names of strategies or TOML files, with commas.")
    ],
    benchmark: Benchmark = "synthetic_5x3",
    seeds: Seeds = "0",
    data: Data = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of all runs [runs/BENCHMARK]."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time, each of --threads threads.")
    ] = 1,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Test the others against this strategy, paired over seeds."),
    ] = None,
    published: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Show the published numbers of this benchmark beside."),
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
    cache: CacheFolder = None,
    overrides: Overrides = None,
) -> None:
    """Compare strategies over seeds; write tables and figures."""
    limit_threads(threads)
    from avalanche_ad.recipes import load_experiment

    numbers = seed_numbers(seeds)
    names = [name.strip() for name in strategies.split(",") if name.strip()]
    if not names:
        raise RecipeError("--strategies: expected at least one name")
    refuse_repeated("--strategies", names)
    recipes = [load_experiment(benchmark, name, overrides or []) for name in names]
    roots = used_folders(data, recipes[0])
    stream = recipes[0].benchmark
    shown = load_experiment(published, "naive").benchmark if published else stream
    if published and not shown.published:
        raise RecipeError(
            f"--published {published!r}: this benchmark lists no published numbers"
        )
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.progress import RunProgress
    from avalanche_ad.experiments.sweep import compare as sweep
    from avalanche_ad.experiments.sweep import published_note
    from avalanche_ad.reporting.comparison import against_section
    from avalanche_ad.reporting.coverage import coverage_note
    from avalanche_ad.reporting.published import published_sections
    from avalanche_ad.reporting.tables import (
        comparison_rows,
        comparison_table,
        terminal_table,
    )

    folder = out or Path("runs") / recipes[0].benchmark_name
    reference = against and Path(against).stem
    with RunProgress(err) as progress:
        results = sweep(
            recipes,
            numbers,
            folder,
            data_root=roots,
            device=pick_device(device, threads),
            cache=open_cache(cache),
            progress=progress,
            announce=say,
            jobs=jobs,
            threads=threads,
            against=reference,
            published=shown,
        )
    over = counted(len(numbers), "seed")
    title = f"{stream.title}, {over} (forgetting: positive = forgot)"
    print_table(comparison_table(comparison_rows(results), title))
    if coverage := coverage_note(results):
        output.print(coverage, soft_wrap=True)
    tables = [against_section(results, reference)] if reference else []
    entries = [entry.model_dump() for entry in shown.published]
    beside = published_sections(results, entries, only_measured=True)
    for table in (*tables, *beside):
        print_table(terminal_table(table))
        output.print(table.caption, soft_wrap=True)
    if beside and (note := published_note(stream, shown)):
        output.print(note, soft_wrap=True)
    say(f"written: {folder}/compare.md and others beside it")
