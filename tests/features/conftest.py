from pathlib import Path

import numpy as np
import pytest
import torch

from avalanche_ad.datasets.sample import Sample
from avalanche_ad.features import Backbone


class DrawnData:
    """A data set in memory: random images, one fingerprint each."""

    name = "drawn"
    categories = ("thing",)

    def __init__(self, count=5, size=16, seed=0):
        generator = np.random.default_rng(seed)
        self._images = generator.integers(0, 256, (count, size, size, 3), np.uint8)
        self.samples = [
            Sample(Path(f"drawn/{index}.png"), "thing", "train")
            for index in range(count)
        ]

    def image(self, sample):
        return self._images[int(sample.path.stem)]

    def mask(self, sample):
        return np.zeros(self.image(sample).shape[:2], bool)

    def fingerprint(self, sample):
        return self.image(sample).tobytes().hex()[:64]

    def change(self, index):
        self._images[index] ^= 1


class MeanColors(Backbone):
    """The cheapest backbone: means of blocks, times a stored gain."""

    name = "mean colors"

    def __init__(self, gain=1.0):
        super().__init__()
        self.register_buffer("gain", torch.tensor(gain))
        self.freeze()

    def describe(self):
        return {"kind": self.name}

    def extract(self, images):
        pool = torch.nn.functional.avg_pool2d
        return [
            pool(images, block).permute(0, 2, 3, 1) * self.get_buffer("gain")
            for block in (2, 4)
        ]


@pytest.fixture
def data():
    return DrawnData()


@pytest.fixture
def mean_colors():
    return MeanColors
