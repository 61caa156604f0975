"""``avalanche-ad run``: train a strategy on a stream."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from avalanche_ad.cli.options import (
    MAX_SEED,
    Benchmark,
    CacheFolder,
    Data,
    Device,
    Overrides,
    Strategy,
    Threads,
    limit_threads,
    open_cache,
    used_folders,
)
from avalanche_ad.cli.output import err, print_table, say
from avalanche_ad.cli.output import out as output
from avalanche_ad.errors import counted


def run(
    benchmark: Benchmark = "synthetic_5x3",
    strategy: Strategy = "context_flow",
    data: Data = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the run [runs/BENCHMARK/STRATEGY-seedN]."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Model start and data order.")
    ] = 0,
    device: Device = "auto",
    threads: Threads = 1,
    cache: CacheFolder = None,
    overrides: Overrides = None,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Make a finished run anew, or discard an interrupted one.",
        ),
    ] = False,
    start: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--from", help="A finished run to go on from: learn what is new."),
    ] = None,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(min=0, help="Between checkpoints in a task, at ends of epochs."),
    ] = 10.0,
) -> None:
    """Train a strategy on a stream, evaluate after every task, save the run."""
    limit_threads(threads)
    from avalanche_ad.recipes import load_experiment

    recipe = load_experiment(benchmark, strategy, overrides or [])
    roots = used_folders(data, recipe)
    from avalanche_ad.experiments.device import pick_device
    from avalanche_ad.experiments.progress import RunProgress
    from avalanche_ad.experiments.runner import run_experiment
    from avalanche_ad.reporting.coverage import coverage_note
    from avalanche_ad.reporting.tables import (
        comparison_rows,
        comparison_table,
        task_table,
    )

    folder = out or (
        Path("runs") / recipe.benchmark_name / f"{recipe.strategy_name}-seed{seed}"
    )
    shown = ("image_auroc", "pixel_auroc", "aupro", "category_accuracy")

    backbone_calls: int | None = None

    def after_features(calls: int) -> None:
        nonlocal backbone_calls
        backbone_calls = calls

    def after_task(task: int, rows: Any) -> None:
        with suppress(OSError):  # whoever reads has gone: the run goes on
            print_table(task_table(f"After task {task + 1}", rows, shown))

    say(f"{recipe.benchmark.title} · {recipe.strategy.title} · seed {seed}")
    with RunProgress(err) as progress:
        results = run_experiment(
            recipe,
            folder,
            data_root=roots,
            seed=seed,
            device=pick_device(device, threads),
            cache=open_cache(cache),
            progress=progress,
            announce=say,
            after_features=after_features,
            after_task=after_task,
            fresh=fresh,
            checkpoint_minutes=checkpoint_minutes,
            start=start,
        )
    print_table(
        comparison_table(
            comparison_rows([results]),
            "Final values, mean over categories (forgetting: positive = forgot)",
        )
    )
    if coverage := coverage_note([results]):
        output.print(coverage, soft_wrap=True)
    if backbone_calls is None:  # it was there already
        return
    seconds = results["seconds"]
    say(
        f"features {seconds['features']:.0f} s "
        f"({counted(backbone_calls, 'backbone call')}), "
        f"training {seconds['train']:.0f} s, "
        f"evaluation {seconds['eval']:.0f} s; saved in {folder}"
    )
