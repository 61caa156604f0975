"""The defects of test images one by one, as metrics of regions need them."""

from __future__ import annotations

from collections.abc import Iterable

from avalanche_ad.benchmarks.items import PackedMasks
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
        self._masks: dict[str, PackedMasks] = {}
        self._said: dict[str, list[tuple[float, str]]] = {}
        if isinstance(data, RegionData):
            for sample in samples:
                path, regions = str(sample.path), data.regions(sample)
                self._masks[path] = PackedMasks(
                    [region.resized(mask_size).mask for region in regions]
                )
                self._said[path] = [(one.saturation, one.kind) for one in regions]

    def __bool__(self) -> bool:
        return bool(self._masks)

    def __getitem__(self, path: str) -> list[Region]:
        masks = self._masks[path]
        return [
            Region(masks[index].numpy(), saturation, kind)
            for index, (saturation, kind) in enumerate(self._said[path])
        ]
