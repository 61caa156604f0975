"""One image of an anomaly-detection data set, and the data set that holds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["GOOD", "UNKNOWN", "AnomalyData", "Sample", "Split"]

GOOD = "good"
UNKNOWN = 255
"""The value of every pixel of a mask that is not known, among masks of 0 and 1."""
Split = Literal["train", "test"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: where it is, what it shows and where its mask is.

    :param path: the image file; for a data set held in memory, a path that names the
        image uniquely but does not exist on disk.
    :param category: the product category, for example ``"bottle"``.
    :param split: ``"train"`` (always normal) or ``"test"``.
    :param defect_type: ``"good"`` or the name of the defect.
    :param mask_paths: the mask files of an anomalous image, whose defect is what any
        of them shows. Without one, it is not known where its defect is. A normal image
        needs none.

    >>> Sample(Path("0.png"), "cable", "test", defect_type="cut").is_anomaly
    True
    """

    path: Path
    category: str
    split: Split
    defect_type: str = GOOD
    mask_paths: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a single path in the place of several."""
        if not isinstance(self.mask_paths, tuple):
            raise TypeError(
                f"mask_paths of {self.path}: expected a tuple of paths, as (mask,), "
                f"got {type(self.mask_paths).__name__}"
            )

    @property
    def is_anomaly(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect_type != GOOD


@runtime_checkable
class AnomalyData(Protocol):
    """A data set: its samples, and how to get their pixels.

    Implemented by the readers of folders on disk and by the procedural data set.

    >>> from avalanche_ad.datasets import SyntheticAD
    >>> isinstance(SyntheticAD(), AnomalyData)
    True
    """

    @property
    def name(self) -> str:
        """Short name, for example ``"mvtec_ad"``."""

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories, in the data set's own order."""

    @property
    def samples(self) -> Sequence[Sample]:
        """All samples, sorted by category, split, defect type and path."""

    def image(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Return the image as RGB, shape (H, W, 3), values 0-255."""

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_] | None:
        """Return the defect mask at the image's own size, shape (H, W).

        All false for a normal image, ``None`` for an anomalous one whose mask is not
        known: it counts for metrics of images, not for those of pixels.
        """

    def fingerprint(self, sample: Sample) -> str:
        """Return a hexadecimal digest of all that decides the image's pixels.

        Of those of its mask as well, where ``mask_paths`` names some that are no files.
        """
