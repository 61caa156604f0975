"""Options that several commands share, and what they are turned into."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from avalanche_ad.cli.output import say
from avalanche_ad.errors import RecipeError

if TYPE_CHECKING:
    from avalanche_ad.features import FeatureCache
    from avalanche_ad.recipes import ExperimentRecipe

MAX_SEED = 2**32 - 1  # NumPy's

Benchmark = Annotated[
    str, typer.Option("--benchmark", "-b", help="Name of a stream, or a TOML file.")
]
Data = Annotated[
    Optional[list[Path]],  # noqa: UP045 - typer reads this at run time
    typer.Option(
        "--data",
        help="Folder of the data set; repeatable, each with some of its categories.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")]
Threads = Annotated[
    int,
    typer.Option(min=1, help="CPU threads; more pay for large models."),
]
CacheFolder = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--cache", help="Folder of the feature cache."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="section.key=value, over the recipes; repeatable."),
]
Strategy = Annotated[
    str, typer.Option("--strategy", "-s", help="Name of a strategy, or a TOML file.")
]
Seeds = Annotated[str, typer.Option(help="Seeds with commas.")]


def seed_numbers(seeds: str) -> list[int]:
    """Return the seeds of an option."""
    try:
        numbers = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= MAX_SEED for number in numbers):
        raise RecipeError(
            f"--seeds {seeds!r}: expected whole numbers from 0 with commas, such as "
            "0,1,2"
        )
    refuse_repeated("--seeds", numbers)
    return numbers


def refuse_repeated(option: str, values: Sequence[object]) -> None:
    """Refuse an option with a value that is given twice."""
    for value in values:
        if values.count(value) > 1:
            raise RecipeError(f"{option}: {value} is given twice")


def limit_threads(threads: int) -> None:
    """Hold libraries to the threads that torch may use; before they are imported."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def open_cache(folder: Path | None) -> FeatureCache:
    """Return the feature cache of a folder, the user's own by default."""
    from avalanche_ad.features import FeatureCache

    return FeatureCache(folder)


def used_folders(
    data: Sequence[Path] | None, recipe: ExperimentRecipe
) -> tuple[Path, ...]:
    """Return the folders of the data set, none for images that are drawn."""
    from avalanche_ad.datasets import DATASETS

    if not data or DATASETS.find(recipe.benchmark.dataset).needs_root:
        return recipe.benchmark.data_roots(data)
    say(
        f"note: {recipe.benchmark_name} draws its own images and does not read --data "
        f"{named_folders(data)}"
    )
    return ()


def named_folders(folders: Sequence[Path]) -> str:
    """Return folders as a part of a line."""
    return " and ".join(map(str, folders))
