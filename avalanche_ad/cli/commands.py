"""The program's commands, in the order in which its help shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from avalanche_ad import __version__
from avalanche_ad.cli.cache import cache
from avalanche_ad.cli.calibrate import calibrate
from avalanche_ad.cli.check import check
from avalanche_ad.cli.compare import compare
from avalanche_ad.cli.experiment import experiment
from avalanche_ad.cli.list import list_
from avalanche_ad.cli.predict import predict
from avalanche_ad.cli.report import report
from avalanche_ad.cli.run import run
from avalanche_ad.cli.synthesize import synthesize

__all__ = ["app"]

app = typer.Typer(
    name="avalanche-ad",
    help="Continual learning for industrial anomaly detection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"avalanche-ad {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del debug, version  # main() and the callback read them


app.command()(run)
app.command()(compare)
app.command()(experiment)
app.command()(report)
app.command("list")(list_)
app.command()(check)
app.command()(synthesize)
app.command()(cache)
app.command()(predict)
app.command()(calibrate)
