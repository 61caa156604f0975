"""``avalanche-ad check``: every problem of a data set on disk."""

from __future__ import annotations

import typer

from avalanche_ad.cli.options import Benchmark, Data, named_folders
from avalanche_ad.cli.output import err, one_line, say
from avalanche_ad.errors import RecipeError, counted


def check(
    benchmark: Benchmark = "synthetic_5x3",
    data: Data = None,
) -> None:
    """Validate a data set on disk: list every problem of it, or say what is there."""
    from avalanche_ad.datasets import DATASETS, check_dataset
    from avalanche_ad.recipes import load_experiment

    loaded = load_experiment(benchmark, "naive")
    recipe = loaded.benchmark
    if data and not DATASETS.find(recipe.dataset).needs_root:
        raise RecipeError(
            f"--data {named_folders(data)} cannot be checked, since "
            f"{loaded.benchmark_name} draws its own images: name the benchmark of your "
            "data with -b, such as -b mvtec_5x3"
        )
    roots = recipe.data_roots(data)
    from avalanche_ad.experiments.progress import RunProgress

    with RunProgress(err) as progress:
        problems = check_dataset(
            recipe.dataset,
            roots,
            recipe.selection,
            lambda done, total: progress.report("checking", done, total),
            **recipe.reader_options,
        )
    for problem in problems:
        typer.echo(one_line(f"{problem.severity}: {problem}"))

    errors = sum(problem.severity == "error" for problem in problems)
    notes = len(problems) - errors
    if not errors:
        from avalanche_ad.experiments.build import open_data

        found = open_data(recipe, roots)
        train = sum(sample.split == "train" for sample in found.samples)
        say(
            f"{loaded.benchmark_name}: {counted(len(found.categories), 'category')}, "
            f"{train} training and {counted(len(found.samples) - train, 'test image')} "
            f"{f'in {named_folders(roots)}' if roots else 'drawn'}"
        )
    say(f"{counted(errors, 'error')}, {counted(notes, 'note')}")
    if errors:
        raise typer.Exit(2)
