"""What a layout of data sets is read by: the base classes of all readers."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from avalanche_ad.datasets.disk import DiskData, Problem, with_masks_found
from avalanche_ad.datasets.sample import AnomalyData, Sample
from avalanche_ad.datasets.scanning import Scan, report_unreadable
from avalanche_ad.datasets.validation import Progress, find_problems
from avalanche_ad.errors import DatasetError

__all__ = ["DatasetReader", "DiskReader"]


class DatasetReader(ABC):
    """Open a data set, and list what is wrong with it.

    A new data set is a subclass, in a file of ``avalanche_ad/datasets/readers`` or of
    another package; see :class:`~avalanche_ad.registry.Registry`. Further keyword
    arguments of its constructor are its options, which :func:`open_dataset` takes.

    :cvar name: what the data set is called in recipes and results; the class's own
        name by default.
    :cvar needs_root: whether it is read from a folder.
    :param root: that folder.
    :param categories: a selection; all otherwise, always in the data set's own order.
    :raises DatasetError: when the folder is needed and not given.

    >>> from avalanche_ad.datasets.readers.synthetic import SyntheticReader
    >>> SyntheticReader(categories=["gear"], train_images=2).open(64).categories
    ('gear',)
    """

    name: ClassVar[str] = ""
    needs_root: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            cls.name = cls.__name__
        for taken in ("folder", "image_size"):
            if taken in inspect.signature(cls).parameters:
                raise TypeError(f"{cls.__name__}: an option cannot be named {taken}")

    def __init__(
        self,
        root: Path | str | None = None,
        categories: Sequence[str] | None = None,
    ) -> None:
        if root is None and self.needs_root:
            raise DatasetError(
                f"data set {self.name} needs --data DIR, the folder it is in"
            )
        self.root = Path(root or ".")
        self.categories = categories

    @abstractmethod
    def open(self, image_size: int = 128) -> AnomalyData:
        """Return the data set.

        :param image_size: side in pixels that images are resized to later: those that
            are drawn may be drawn at this size.
        :raises DatasetError: at the first thing that would break training.
        """

    def check(self, progress: Progress | None = None) -> list[Problem]:
        """Return every problem of the data set, the errors first, then the notes.

        :param progress: called after every image with (done, total).
        :raises DatasetError: when it cannot be opened.
        """
        return _errors_first(find_problems(self.open(), progress))


class DiskReader(DatasetReader):
    """Read images and masks from a folder; a subclass says which, by :meth:`scan`.

    :cvar data: the class of its data set, for one that knows more than its masks.

    >>> class Flat(DiskReader):
    ...     name = "flat"
    ...     def scan(self):
    ...         for path in sorted(self.root.glob("*.png")):
    ...             yield Sample(path, category="part", split="train")
    >>> print(Flat("nowhere").check()[0])
    nowhere: no image of the data set 'flat' found
    """

    data: ClassVar[type[DiskData]] = DiskData

    @abstractmethod
    def scan(self) -> Scan:
        """Yield the samples, category by category in order, and problems as met.

        The mask of an anomalous image is true in every pixel that is not zero; one that
        is named and not there is unknown, as where none is named. A problem that is an
        error stops a run, a note does not.
        """

    def open(self, image_size: int = 128) -> DiskData:
        """Return the data set, its images of their own size.

        :raises DatasetError: at the first thing that would break training.
        """
        found = self.data.open(self.name, report_unreadable(self.scan)())
        if not found.samples:
            raise DatasetError(str(self._nothing()))
        return found

    def check(self, progress: Progress | None = None) -> list[Problem]:
        """Return every problem of the folders, then of the files; errors first.

        :param progress: called after every image with (done, total).
        """
        found = list(with_masks_found(report_unreadable(self.scan)()))
        samples = tuple(item for item in found if isinstance(item, Sample))
        if not found:
            found.append(self._nothing())
        structure = [item for item in found if isinstance(item, Problem)]
        content = find_problems(self.data(self.name, samples), progress)
        return _errors_first(structure + content)

    def _nothing(self) -> Problem:
        """Return what to say where a scan finds nothing, not even a problem."""
        return Problem(self.root, f"no image of the data set {self.name!r} found")


def _errors_first(problems: Sequence[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.severity != "error")
