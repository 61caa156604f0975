"""The one exception family of the package, and what its messages share.

Every error a person can cause ends as one of these, with a message of one line that
says what was found, where, what was expected and how to mend it. The command line
prints that line and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "AvalancheADError",
    "CacheError",
    "DatasetError",
    "RecipeError",
    "ResultsError",
    "RunBusyError",
    "TrainingError",
    "WeightsError",
    "counted",
    "reading",
    "writing",
]


class AvalancheADError(ValueError):
    """Base of every error this package raises on purpose."""


class DatasetError(AvalancheADError):
    """A data set on disk is missing, incomplete or damaged."""


class WeightsError(AvalancheADError):
    """A weight file is missing, damaged or made for another network."""


class CacheError(AvalancheADError):
    """The feature cache cannot be read or written."""


class RecipeError(AvalancheADError):
    """A recipe or an option asks for something that does not exist."""


class TrainingError(AvalancheADError):
    """Training broke, for example by a loss that is not finite."""


class ResultsError(AvalancheADError):
    """A run's files are missing, incomplete or cannot be written."""


class RunBusyError(ResultsError):
    """Another process is working on the run."""


def counted(count: int, what: str, many: str | None = None) -> str:
    """Return a number with its noun.

    :param count: how many.
    :param what: the noun in the singular.
    :param many: its plural, where that is not made with an s, or a y that becomes ies.

    >>> counted(1, "category"), counted(2, "category"), counted(0, "run")
    ('1 category', '2 categories', '0 runs')
    """
    if many is None:
        ends = what.endswith("y") and what[-2:-1] not in "aeiou"
        many = f"{what[:-1]}ies" if ends else f"{what}s"
    return f"{count} {what if count == 1 else many}"


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line.

    :param folder: what is read.
    :raises ResultsError: for any ``OSError`` within the block.
    """
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"{folder}: cannot be read ({error.strerror or error}): check it and its "
            "permissions"
        ) from error


@contextmanager
def writing(folder: Path, what: str = "") -> Iterator[None]:
    """Turn what the file system refuses into one line that says how to mend it.

    :param folder: what was given as ``--out``.
    :param what: what is written there.
    :raises ResultsError: for any ``OSError`` within the block.
    """
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"{folder}: cannot write {what + ' ' if what else ''}there "
            f"({error.strerror or error}): choose a writable --out"
        ) from error
