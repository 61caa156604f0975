"""Data sets by name, as recipes and the command line give them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.reader import DatasetReader, DiskReader
from avalanche_ad.datasets.roots import JoinedReader, Roots, as_roots
from avalanche_ad.datasets.sample import AnomalyData
from avalanche_ad.datasets.validation import Progress
from avalanche_ad.errors import DatasetError
from avalanche_ad.registry import Registry
from avalanche_ad.registry.arguments import check_options
from avalanche_ad.registry.building import built

__all__ = ["DATASETS", "check_dataset", "open_dataset"]

Reader = TypeVar("Reader", bound=DatasetReader)

DATASETS: Registry[DatasetReader] = Registry(
    "dataset",
    "avalanche_ad.datasets.reader.DatasetReader",
    "avalanche_ad.datasets.readers",
    also=", or give the dotted path of a reader's class",
)
"""The readers of data sets by name."""


def open_dataset(
    name: str,
    root: Roots = None,
    categories: Sequence[str] | None = None,
    *,
    image_size: int = 128,
    folder: Path | None = None,
    **options: object,
) -> AnomalyData:
    """Open a data set by name.

    :param name: a name of ``DATASETS``, or the dotted path of a reader's class.
    :param root: its folder, or several, each with some of its categories; not needed
        for one that is drawn.
    :param categories: a selection; all otherwise, always in the data set's own order.
    :param image_size: side in pixels that images are resized to later; those of
        ``"synthetic"`` are drawn at this size, others keep their own.
    :param folder: where modules are looked for that are found nowhere else.
    :param options: further arguments of the reader.
    :raises RecipeError: when the name or an option is unknown.
    :raises DatasetError: when the folder is not given, or at the first thing in it that
        would break training.

    >>> open_dataset("synthetic", categories=["gear", "bolt"], seed=1).categories
    ('gear', 'bolt')
    """
    reader = _reader(name, root, categories, folder, options)
    given = {"image_size": image_size}
    what = f"dataset {name!r}"
    found: AnomalyData = built(reader.open, given, what, "cannot be read", DatasetError)
    return found


def check_dataset(
    name: str,
    root: Roots = None,
    categories: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    folder: Path | None = None,
    **options: object,
) -> list[Problem]:
    """List every problem of a data set: of its structure, then of its files.

    :param name: as for :func:`open_dataset`, like ``root``, ``categories``, ``folder``
        and ``options``.
    :param progress: called after every image with (done, total).
    :return: the errors, then the notes; empty if all is well.
    :raises RecipeError: when the name or an option is unknown.
    :raises DatasetError: when the folder is not given.
    """
    reader = _reader(name, root, categories, folder, options)
    given = {"progress": progress}
    what = f"dataset {name!r}"
    problems: list[Problem] = built(
        reader.check, given, what, "cannot be checked", DatasetError
    )
    return problems


def _reader(
    name: str,
    root: Roots,
    categories: Sequence[str] | None,
    folder: Path | None,
    options: dict[str, object],
) -> DatasetReader:
    made = DATASETS.find(name, folder)
    check_options(made, options, f"dataset {name!r}", ("root", "categories"))
    roots = as_roots(root)
    if len(roots) > 1 and made.needs_root:
        if not issubclass(made, DiskReader) or _opens_itself(made):
            raise DatasetError(
                f"data set {name!r} reads one folder, got {', '.join(map(str, roots))}"
            )
        return JoinedReader(roots, categories, partial(_built, made, name, options))
    return _built(made, name, options, next(iter(roots), None), categories)


def _built(
    made: type[Reader],
    name: str,
    options: dict[str, object],
    root: Path | None,
    categories: Sequence[str] | None,
) -> Reader:
    given = {"root": root, "categories": categories, **options}
    reader: Reader = built(made, given, f"dataset {name!r}")
    return reader


def _opens_itself(made: type[DiskReader]) -> bool:
    """Whether more than its scan says what a data set is."""
    return made.open is not DiskReader.open or made.check is not DiskReader.check
