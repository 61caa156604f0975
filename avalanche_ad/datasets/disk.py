"""A data set on disk: what a reader found, and how to load it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
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
from avalanche_ad.errors import DatasetError

__all__ = ["DiskData", "Problem", "Severity", "image_fingerprint"]

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
        :param scan: samples, the categories in order, and problems; notes are kept.
        :raises DatasetError: at the first problem that is an error.
        """
        samples: list[Sample] = []
        notes: list[Problem] = []
        for item in scan:
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

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Return the defect mask, shape (H, W); all false for a normal image.

        :raises DatasetError: when a file is missing or damaged, or an anomalous
            sample names no mask.
        """
        return self.read_mask(sample)[0]

    def read_mask(self, sample: Sample) -> tuple[npt.NDArray[np.bool_], list[Remark]]:
        """Return the defect mask and what is odd about its file.

        :raises DatasetError: as ``mask``.
        """
        if not sample.mask_paths:
            if sample.is_anomaly:
                raise DatasetError(f"{sample.path}: anomalous image without mask")
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


def image_fingerprint(path: Path) -> str:
    """Return a hexadecimal digest of an image file's content and the loading rules.

    :raises DatasetError: when the file cannot be read.
    """
    identity = f"{LOADING_RULES}:{file_digest(path)}"
    return hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
