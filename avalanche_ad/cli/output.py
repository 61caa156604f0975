"""What is printed: tables, and lines that stay lines."""

from __future__ import annotations

import logging
from typing import TextIO

from rich.console import Console
from rich.table import Table

__all__ = [
    "LineHandler",
    "err",
    "one_line",
    "out",
    "print_table",
    "say",
    "say_error",
    "show_warning",
]

# what is printed comes from recipes and file names: never to be read as markup
out = Console(markup=False, highlight=False)
err = Console(stderr=True, markup=False, highlight=False)


def print_table(table: Table) -> None:
    """Print a table, as wide as it is where nobody looks at a terminal."""
    # in a file or a pipe there is no edge that a table would have to fit in
    wide = Console(width=160, markup=False, highlight=False)
    (out if out.is_terminal else wide).print(table)


def say(text: str, style: str | None = None) -> None:
    """Print a line to standard error, however narrow the terminal."""
    err.print(text, style=style, soft_wrap=True)


def say_error(message: str) -> None:
    """Print an error in one line."""
    say(f"error: {one_line(message)}", "red")


def one_line(message: str) -> str:
    """Join lines: names of files may hold any character, and what is no text."""
    line = " ".join(part.strip() for part in message.splitlines())
    return line.encode(errors="backslashreplace").decode()


class LineHandler(logging.Handler):
    """Print what the package logs as lines, like its warnings; each line once.

    >>> log = logging.getLogger("avalanche_ad")
    >>> handler = LineHandler()
    >>> log.addHandler(handler)
    >>> log.warning("the cache is full")
    >>> log.removeHandler(handler)
    >>> handler.told
    {'warning: the cache is full'}
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless it was told before."""
        kind = "note" if hasattr(record, "note") else "warning"
        line = one_line(f"{kind}: {record.getMessage()}")
        if line not in self.told:  # every run of a comparison opens the same data
            self.told.add(line)
            say(line)


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the source it came from."""
    if issubclass(category, DeprecationWarning):
        return  # meant for programmers; Avalanche insists on showing its own
    say(f"warning: {message}")
