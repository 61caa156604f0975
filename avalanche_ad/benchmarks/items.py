"""The torch data sets behind the streams: images or cached features, with targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avalanche_ad.datasets.sample import UNKNOWN, AnomalyData, Sample
from avalanche_ad.features.extraction import load_images

__all__ = ["FeatureSource", "ImageSource", "PackedMasks", "TestItems", "TrainItems"]


class ImageSource:
    """Images of a data set, resized, as float tensors (3, S, S) in [0, 1].

    >>> from avalanche_ad.datasets import SyntheticAD
    >>> data = SyntheticAD(64, train_images=2, categories=["tile_grid"])
    >>> ImageSource(data, data.samples, image_size=32)[0].shape
    torch.Size([3, 32, 32])
    """

    def __init__(
        self, data: AnomalyData, samples: Sequence[Sample], image_size: int
    ) -> None:
        self.data = data
        self.samples = tuple(samples)
        self.image_size = image_size

    def __getitem__(self, index: int) -> Tensor:
        return load_images(self.data, [self.samples[index]], self.image_size)[0]


class FeatureSource:
    """Rows of one or more caches of features, as float tensors (size,).

    :param rows: (cache, row) of every item.

    >>> FeatureSource([(torch.eye(3), 2), (torch.eye(3), 0)])[0]
    tensor([0., 0., 1.])
    """

    def __init__(self, rows: Sequence[tuple[Any, int]]) -> None:
        self.rows = tuple(rows)

    def __getitem__(self, index: int) -> Tensor:
        cache, row = self.rows[index]
        features: Tensor = cache[row]
        return features


class PackedMasks:
    """Defect masks at mask size, eight pixels a byte.

    They are boolean; with an unknown one among them they are of unsigned bytes, and
    that one is ``UNKNOWN``, 255, in every pixel, the usual value of pixels to ignore.

    :param masks: one (H, W) boolean array per image, ``None`` for an unknown one.
    :param size: (H, W), where it does not follow from a mask.

    >>> masks = PackedMasks([np.eye(8, dtype=bool), np.zeros((8, 8), dtype=bool)])
    >>> int(masks[0].sum()), int(masks[1].sum())
    (8, 0)
    >>> masks.bits[0].nbytes
    8
    >>> PackedMasks([np.eye(2, dtype=bool), None])[1]
    tensor([[255, 255],
            [255, 255]], dtype=torch.uint8)
    """

    def __init__(
        self,
        masks: Sequence[npt.NDArray[np.bool_] | None],
        size: tuple[int, int] = (0, 0),
    ) -> None:
        known = [mask for mask in masks if mask is not None]
        self.shape = known[0].shape if known else size
        self.unknown = {number for number, mask in enumerate(masks) if mask is None}
        self.dtype = torch.uint8 if self.unknown else torch.bool
        self.bits = [
            None if mask is None or not mask.any() else np.packbits(mask)
            for mask in masks
        ]

    def __getitem__(self, index: int) -> Tensor:
        bits = self.bits[index]
        if bits is None:
            value = UNKNOWN if index in self.unknown else 0
            return torch.full(self.shape, value, dtype=self.dtype)
        flat = np.unpackbits(bits, count=int(np.prod(self.shape)))
        return torch.from_numpy(flat.reshape(self.shape)).to(self.dtype)


class TrainItems(Dataset[tuple[Tensor, int]]):
    """Training items (x, category).

    >>> TrainItems(FeatureSource([(torch.eye(3), 2)]), targets=[5])[0]
    (tensor([0., 0., 1.]), 5)
    """

    def __init__(
        self, source: ImageSource | FeatureSource, targets: Sequence[int]
    ) -> None:
        self.source = source
        self.targets = list(targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.source[index], self.targets[index]


class Masks(Protocol):
    """Masks of items, each (H, W)."""

    def __getitem__(self, index: int) -> Tensor:
        """Return the mask of an item."""


class TestItems(Dataset[tuple[Tensor, int, bool, Tensor]]):
    """Test items (x, category, is_anomaly, mask).

    >>> masks = PackedMasks([np.eye(2, dtype=bool)])
    >>> source = FeatureSource([(torch.eye(3), 2)])
    >>> x, y, is_anomaly, mask = TestItems(source, [5], [True], masks)[0]
    >>> y, is_anomaly, mask.tolist()
    (5, True, [[True, False], [False, True]])
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(
        self,
        source: ImageSource | FeatureSource,
        targets: Sequence[int],
        anomalous: Sequence[bool],
        masks: Masks,
    ) -> None:
        self.source = source
        self.targets = list(targets)
        self.anomalous = list(anomalous)
        self.masks = masks

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int, bool, Tensor]:
        return (
            self.source[index],
            self.targets[index],
            self.anomalous[index],
            self.masks[index],
        )
