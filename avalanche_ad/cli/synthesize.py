"""``avalanche-ad synthesize``: the procedural data set on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from avalanche_ad.cli.output import err, say
from avalanche_ad.errors import counted


def synthesize(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    size: Annotated[int, typer.Option(help="Edge of the images in pixels.")] = 128,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    categories: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Some categories, with commas."),
    ] = None,
) -> None:
    """Write the procedural data set to disk in MVTec AD's layout."""
    from avalanche_ad.datasets import SyntheticAD, write_mvtec_layout
    from avalanche_ad.experiments.progress import RunProgress

    chosen = [name.strip() for name in categories.split(",")] if categories else None
    made = SyntheticAD(size=size, seed=seed, categories=chosen)
    with RunProgress(err) as progress:
        write_mvtec_layout(
            made, folder, lambda done, total: progress.report("writing", done, total)
        )
    say(f"{counted(len(made.samples), 'image')} in {folder}")
