"""A data set on disk: what a reader found, and how to load it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets.loading import (
    LOADING_RULES,
    Remark,
    file_digest,
    image_size,
    load_image,
)
from avalanche_ad.datasets.masks import read_mask
from avalanche_ad.datasets.sample import Sample
from avalanche_ad.errors import DatasetError, counted

__all__ = ["DiskData", "Problem", "Severity", "image_fingerprint", "with_masks_found"]

Severity = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth knowing, about a data set.

    :param path: the file or folder it is about.
    :param message: what was expected, what was found and how to mend it, in one line.
    :param severity: an ``"error"`` stops a run; a ``"note"`` does not.
    :param files: how many files the note says are passed over.

    >>> print(Problem(Path("parts/cable"), "folder not found"))
    parts/cable: folder not found
    """

    path: Path
    message: str
    severity: Severity = "error"
    files: int = 0

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


@dataclass(frozen=True)
class DiskData:
    """Images and masks on disk; implements ``AnomalyData`` and is light to pickle.

    :param name: short name, for example ``"mvtec_ad"``.
    :param samples: all samples, sorted by category, split, defect type and path.
    :param notes: what the reader passed over.

    >>> DiskData.open("own", [Sample(Path("0.png"), "cable", "train")]).categories
    ('cable',)
    """

    name: str
    samples: tuple[Sample, ...] = field(repr=False)
    notes: tuple[Problem, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def open(cls, name: str, scan: Iterable[Sample | Problem]) -> DiskData:
        """Collect samples and notes, and stop at the first error.

        :param name: short name of the data set.
        :param scan: samples, the categories in order, and problems; notes are kept. A
            mask that is named and not there is unknown, see :func:`with_masks_found`.
        :raises DatasetError: at the first problem that is an error.
        """
        samples: list[Sample] = []
        notes: list[Problem] = []
        for item in with_masks_found(scan):
            if isinstance(item, Sample):
                samples.append(item)
            elif item.severity == "error":
                raise DatasetError(str(item))
            else:
                notes.append(item)
        order = {c: i for i, c in enumerate(dict.fromkeys(s.category for s in samples))}
        samples.sort(
            key=lambda s: (order[s.category], s.split, s.defect_type, str(s.path))
        )
        return cls(name, tuple(samples), tuple(notes))

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories, in the data set's own order."""
        return tuple(dict.fromkeys(sample.category for sample in self.samples))

    def image(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Return the image at its own size, RGB, shape (H, W, 3), values 0-255.

        :raises DatasetError: when the file is missing or damaged.
        """
        return load_image(sample.path)

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_] | None:
        """Return the defect mask, shape (H, W); all false for a normal image.

        :return: ``None`` for an anomalous sample that names no mask.
        :raises DatasetError: when a file is missing or damaged.
        """
        return self.read_mask(sample)[0]

    def read_mask(
        self, sample: Sample
    ) -> tuple[npt.NDArray[np.bool_] | None, list[Remark]]:
        """Return the defect mask and what is odd about its file.

        :return: the mask, ``None`` as of ``mask``, and the remarks.
        :raises DatasetError: as ``mask``.
        """
        if not sample.mask_paths:
            if sample.is_anomaly:
                return None, []
            return np.zeros(image_size(sample.path), dtype=np.bool_), []
        mask, remarks = read_mask(sample.mask_paths[0], sample.path)
        for path in sample.mask_paths[1:]:
            further, found = read_mask(path, sample.path)
            if further.shape != mask.shape:
                raise DatasetError(
                    f"{path}: mask of {further.shape[1]}x{further.shape[0]} pixels; "
                    f"expected {mask.shape[1]}x{mask.shape[0]}, the size of "
                    f"{sample.mask_paths[0]}"
                )
            mask, remarks = mask | further, remarks + found
        return mask, remarks

    def fingerprint(self, sample: Sample) -> str:
        """Return a hexadecimal digest of the file's content and the loading rules.

        :raises DatasetError: when the file cannot be read.
        """
        return image_fingerprint(sample.path)


def with_masks_found(scan: Iterable[Sample | Problem]) -> Iterator[Sample | Problem]:
    """Yield what a scan does, without the masks of images that lack one of theirs.

    So a reader may name where a mask should be. What part of a defect the masks that
    are there show is not known; a note for each category names one that is missing,
    unless there is no folder that it could be in.

    :param scan: samples and problems.
    """
    missing: dict[str, list[Path]] = {}
    for item in scan:
        if isinstance(item, Sample):
            gone = [path for path in item.mask_paths if not path.is_file()]
            if gone:
                missing.setdefault(item.category, []).append(gone[0])
                yield replace(item, mask_paths=())
                continue
        yield item
    for paths in missing.values():
        expected = [path for path in paths if path.parent.is_dir()]
        if expected:
            more = counted(len(expected) - 1, "other")
            rest = f", like {more} of this category" * (len(expected) > 1)
            yield Problem(expected[0], f"mask not found{rest}", "note")


def image_fingerprint(path: Path) -> str:
    """Return a hexadecimal digest of an image file's content and the loading rules.

    :raises DatasetError: when the file cannot be read.
    """
    identity = f"{LOADING_RULES}:{file_digest(path)}"
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
