"""Defects of an image as regions of their own, which may overlap.

A mask says where an image is defective, and no more. Some data sets also say which
pixels make up one defect, and how many of them must be found for it to be found whole:
of a part that is missing, nobody can say where in the empty space it should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets.masks import resize_mask
from avalanche_ad.datasets.sample import Sample

__all__ = ["Region", "RegionData"]


@dataclass(frozen=True, eq=False)
class Region:
    """One defect of an image.

    :param mask: its pixels, (H, W).
    :param saturation: the share of them, in (0, 1], that finds it whole.
    :param kind: the kind of anomaly that its image shows, ``""`` if there is but one.

    >>> int(Region(np.eye(4) > 0, saturation=0.5).resized(8).mask.sum())
    16
    """

    mask: npt.NDArray[np.bool_]
    saturation: float = 1.0
    kind: str = ""

    def resized(self, size: int) -> Region:
        """Return the region in a square, by nearest neighbour; its saturation stays.

        So the number of pixels that saturates it scales with its area. A region of a
        few pixels may vanish.

        :param size: side of the square in pixels.
        """
        return replace(self, mask=resize_mask(self.mask, size))


@runtime_checkable
class RegionData(Protocol):
    """A data set that knows the regions of its anomalous images.

    >>> from avalanche_ad.datasets.readers.mvtec_loco import LOCOData
    >>> isinstance(LOCOData("mvtec_loco", ()), RegionData)
    True
    """

    def regions(self, sample: Sample) -> Sequence[Region]:
        """Return the defects of an image at its own size; none of a normal one."""
