"""``avalanche-ad report``: one page of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from avalanche_ad.cli.output import say
from avalanche_ad.errors import counted


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run, or a folder of runs.")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="The page, or a folder for it [DIR/report.html]."),
    ] = None,
) -> None:
    """Write a self-contained page of finished runs: figures, tables, settings."""
    from avalanche_ad.errors import writing
    from avalanche_ad.experiments.results import read_runs, write_whole
    from avalanche_ad.reporting.html import report_page

    results = read_runs(folder)
    page = report_page(results[0]["benchmark"], results)
    path = out or folder
    if path.is_dir() or not path.suffix:
        path /= "report.html"
    with writing(path, "the page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    say(f"{counted(len(results), 'run')}: {path}")
