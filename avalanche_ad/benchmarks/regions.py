"""The defects of test images one by one, as metrics of regions need them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from avalanche_ad.datasets.regions import Region, RegionData
from avalanche_ad.datasets.sample import AnomalyData, Sample

__all__ = ["PackedRegions"]


class PackedRegions:
    """The regions of images at mask size, by the image's path, eight pixels a byte.

    :param data: the data set; if it knows no regions, there are none of any image.
    :param samples: the images.
    :param mask_size: edge of the regions in pixels.
    :raises DatasetError: when a region cannot be read.

    >>> from avalanche_ad.datasets import SyntheticAD
    >>> bool(PackedRegions(SyntheticAD(64, categories=["gear"]), [], 32))
    False
    """

    def __init__(
        self, data: AnomalyData, samples: Iterable[Sample], mask_size: int
    ) -> None:
        self.mask_size = mask_size
        self._packed: dict[str, list[tuple[bytes, float, str]]] = {}
        if isinstance(data, RegionData):
            for sample in samples:
                self._packed[str(sample.path)] = [
                    (
                        np.packbits(region.resized(mask_size).mask).tobytes(),
                        region.saturation,
                        region.kind,
                    )
                    for region in data.regions(sample)
                ]

    def __bool__(self) -> bool:
        return bool(self._packed)

    def __getitem__(self, path: str) -> list[Region]:
        return [
            Region(self._unpacked(bits), saturation, kind)
            for bits, saturation, kind in self._packed[path]
        ]

    def _unpacked(self, bits: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
        size = self.mask_size
        flat = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=size * size)
        return flat.reshape(size, size).astype(np.bool_)
