"""The program: a person's mistake is one line and exit code 2."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from avalanche_ad.cli.commands import app
from avalanche_ad.cli.output import LineHandler, say, say_error, show_warning
from avalanche_ad.errors import AvalancheADError

__all__ = ["main"]

_INTERRUPTED = 130
# newer versions of typer bring their own copy of click, of which this is a part
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a person's mistake is one line and exit code 2.

    :param arguments: instead of the process's own.
    :raises SystemExit: always, with the exit code.
    """
    # Threads that spin while they wait make a run on a busy machine many times slower;
    # read when torch is first imported, inside the commands.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    # one switch wherever it stands, before the command or after
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    if debug:
        raise SystemExit(app(given, prog_name="avalanche-ad", standalone_mode=False))
    log, handler = logging.getLogger("avalanche_ad"), LineHandler()
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            # what libraries say to programmers
            warnings.filterwarnings("ignore", module=r"(avalanche|torch|timm)\b")
            warnings.showwarning = show_warning
            raise SystemExit(_run(given))
    finally:
        log.removeHandler(handler)


def _run(arguments: list[str]) -> int:
    """Return the exit code of a command, its error told in one line."""
    try:
        code = app(arguments, prog_name="avalanche-ad", standalone_mode=False)
    except AvalancheADError as error:
        say_error(str(error))
        return 2
    except _UsageError as error:
        say_error(f"{error.format_message()} (avalanche-ad --help lists what there is)")
        return 2
    except MemoryError as error:
        say_error(f"memory ran out ({error or 'no more is known'}): take smaller sizes")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        resumes = arguments[0] in ("run", "compare")
        after = "; the same command resumes from its last checkpoint, if it has one"
        say("interrupted" + (after if resumes else ""))
    return code if isinstance(code, int) else 0
