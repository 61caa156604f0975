"""A small data set in memory, the cheapest backbone, and a cache of its own."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from avalanche_ad.datasets.sample import Sample
from avalanche_ad.features import Backbone, FeatureCache

SIZE = 16
CATEGORIES = ("bolt", "cap", "dial", "gear")


class DrawnData:
    """Random images; per category 3 to train on, 2 normal and 2 defective to test."""

    name = "drawn"

    def __init__(self, categories=CATEGORIES, leave_out=()):
        self.categories = tuple(categories)
        groups = (("train", "good", 3), ("test", "good", 2), ("test", "hole", 2))
        self.samples = [
            Sample(
                Path(f"drawn/{category}/{split}/{kind}/{n}.png"), category, split, kind
            )
            for category in self.categories
            for split, kind, count in groups
            for n in range(count)
            if (category, split) not in leave_out
        ]
        self.broken = None

    def _generator(self, sample):
        return np.random.default_rng(list(str(sample.path).encode()))

    def image(self, sample):
        if sample == self.broken:
            return np.zeros((4, 4, 3), np.uint8)
        return self._generator(sample).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def mask(self, sample):
        mask = np.zeros((SIZE, SIZE), bool)
        if sample.is_anomaly:
            top, left = self._generator(sample).integers(0, SIZE - 5, 2)
            mask[top : top + 5, left : left + 4] = True
        return mask

    def fingerprint(self, sample):
        return hashlib.sha256(self.image(sample).tobytes()).hexdigest()


class BlockMeans(Backbone):
    """Means of blocks of pixels, two levels."""

    name = "block means"

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(1.0))
        self.freeze()

    def describe(self):
        return {"kind": self.name}

    def extract(self, images):
        both = torch.cat([images, images.square()], dim=1)
        pool = torch.nn.functional.avg_pool2d
        return [pool(both, block).permute(0, 2, 3, 1) for block in (4, 8)]


@pytest.fixture
def drawn():
    return DrawnData


@pytest.fixture
def data():
    return DrawnData()


@pytest.fixture
def backbone():
    return BlockMeans()


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def image_file():
    """Write an image; its content depends on its path."""

    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(list(str(path).encode())).integers(
            0, 256, (SIZE, SIZE, 3)
        )
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    return write


@pytest.fixture
def mask_file():
    def write(path, size=SIZE):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((size, size), np.uint8)
        pixels[2:6, 3:8] = 255
        Image.fromarray(pixels).save(path)

    return write
