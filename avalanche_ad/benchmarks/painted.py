"""The images of train experiences with painted defects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from avalanche_ad.benchmarks.items import (
    FeatureSource,
    ImageSource,
    PackedMasks,
    TestItems,
)
from avalanche_ad.datasets.masks import resize_mask
from avalanche_ad.datasets.painted import PaintedDefects
from avalanche_ad.datasets.sample import AnomalyData, Sample

__all__ = ["PaintedMasks", "painted_items"]


class PaintedMasks:
    """Where defects are painted, eight pixels a byte; each is painted when asked for.

    :param data: the data set, painted on.
    :param samples: of it.
    :param size: side of the masks in pixels.

    >>> from avalanche_ad.datasets import SyntheticAD
    >>> data = PaintedDefects(SyntheticAD(64, train_images=2, categories=["gear"]))
    >>> PaintedMasks(data, data.samples, 32)[0].shape
    torch.Size([32, 32])
    """

    def __init__(
        self, data: PaintedDefects, samples: Sequence[Sample], size: int
    ) -> None:
        self.data = data
        self.samples = list(samples)
        self.size = size
        self._painted: dict[int, PackedMasks] = {}

    def __getitem__(self, index: int) -> Tensor:
        if index not in self._painted:
            mask = resize_mask(self.data.mask(self.samples[index]), self.size)
            self._painted[index] = PackedMasks([mask])
        return self._painted[index][0]


def painted_items(
    data: PaintedDefects,
    experiences: Sequence[Sequence[Sample]],
    targets: Mapping[str, int],
    mask_size: int,
    source: Callable[[Sequence[Sample], AnomalyData], FeatureSource | ImageSource],
) -> list[TestItems]:
    """Return of every experience its images with defects, as test items.

    :param data: the data set, painted on.
    :param experiences: training images of each.
    :param targets: index of every category.
    :param mask_size: edge of the masks in pixels.
    :param source: of samples' images or features.

    >>> from avalanche_ad.datasets import SyntheticAD
    >>> data = PaintedDefects(SyntheticAD(64, train_images=2, categories=["gear"]))
    >>> normals = [one for one in data.data.samples if one.split == "train"]
    >>> [items] = painted_items(
    ...     data, [normals], {"gear": 0}, 64, lambda some, of: ImageSource(of, some, 64)
    ... )
    >>> x, y, is_anomaly, mask = items[0]
    >>> x.shape, y, is_anomaly, mask.shape
    (torch.Size([3, 64, 64]), 0, True, torch.Size([64, 64]))
    """
    found = []
    for normals in experiences:
        samples = [data.sample_of(one) for one in normals]
        found.append(
            TestItems(
                source(samples, data),
                [targets[one.category] for one in samples],
                [True] * len(samples),
                PaintedMasks(data, samples, mask_size),
            )
        )
    return found
