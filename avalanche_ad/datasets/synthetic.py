"""The procedural data set: fifteen products drawn from a seed, with exact masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets._synthetic.catalogue import CATALOGUE
from avalanche_ad.datasets._synthetic.rendering import DRAWING, rendered
from avalanche_ad.datasets.sample import GOOD, Sample, Split
from avalanche_ad.errors import DatasetError

__all__ = ["SYNTHETIC_CATEGORIES", "SyntheticAD"]

SYNTHETIC_CATEGORIES: tuple[str, ...] = tuple(CATALOGUE)

_SMALLEST_SIZE = 32


class SyntheticAD:
    """Fifteen products with normal variation, and defects with exact masks.

    Images are drawn when asked for, each from (seed, category, split, defect, number)
    alone: neither the order of access nor the size of the data set changes a pixel.
    A defective image is a normal one, of its own pose and colour, plus the defect; its
    mask is true exactly where the defect may have changed a pixel visibly, and outside
    it the picture equals its sound twin bit by bit.

    The bytes should be the same on every machine with IEEE 754 arithmetic: no library
    function whose last digit may differ is used, and random numbers are PCG64's raw
    bits. Checked on x86-64, with and without its vector instructions; golden digests
    in the tests tell where it would not hold. The size of the image is not part of the
    promise: another size draws the same scene, but may have to move a defect that
    would be too small or too large there.

    :param size: side of the square images in pixels, at least 32.
    :param seed: another seed gives another data set of the same kind.
    :param train_images: normal training images per category.
    :param test_normals: normal test images per category.
    :param test_anomalies: defective test images per category, spread evenly over the
        category's defects.
    :param categories: which categories, in which order; all by default.
    :raises DatasetError: when an argument is out of range or a category is unknown.

    >>> data = SyntheticAD(size=64, categories=["gear"])
    >>> sample = data.samples[0]
    >>> sample.defect_type, data.image(sample).shape
    ('crack', (64, 64, 3))
    """

    def __init__(
        self,
        size: int = 128,
        seed: int = 0,
        train_images: int = 64,
        test_normals: int = 24,
        test_anomalies: int = 30,
        categories: Sequence[str] | None = None,
    ) -> None:
        _check_count("size", size, _SMALLEST_SIZE)
        _check_count("seed", seed, 0)
        _check_count("train_images", train_images, 1)
        _check_count("test_normals", test_normals, 0)
        _check_count("test_anomalies", test_anomalies, 0)
        self.size = int(size)
        self.seed = int(seed)
        self.train_images = int(train_images)
        self.test_normals = int(test_normals)
        self.test_anomalies = int(test_anomalies)
        self._categories = _checked_categories(categories)

    def __repr__(self) -> str:
        return (
            f"SyntheticAD(size={self.size}, seed={self.seed}, "
            f"train_images={self.train_images}, test_normals={self.test_normals}, "
            f"test_anomalies={self.test_anomalies}, categories={self._categories!r})"
        )

    @property
    def name(self) -> str:
        """Return ``"synthetic"``."""
        return "synthetic"

    @property
    def categories(self) -> tuple[str, ...]:
        """Return the categories, alphabetical unless an order was given."""
        return self._categories

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Return all samples, sorted by category, split, defect type and path."""
        found = [
            sample for category in self._categories for sample in self._of(category)
        ]
        return tuple(
            sorted(
                found, key=lambda s: (s.category, s.split, s.defect_type, str(s.path))
            )
        )

    def image(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Draw the image, RGB (size, size, 3), values 0-255.

        :param sample: one of ``samples``.
        :raises DatasetError: when the sample is not of this data set.
        """
        self._check(sample)
        return rendered(self.size, self.seed, sample)[0].copy()

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Return the mask (size, size) of what the defect changed visibly.

        :param sample: one of ``samples``.
        :raises DatasetError: when the sample is not of this data set.
        """
        self._check(sample)
        return rendered(self.size, self.seed, sample)[1].copy()

    def fingerprint(self, sample: Sample) -> str:
        """Return a digest of the drawing rules, the parameters and the sample.

        :param sample: one of ``samples``.
        :raises DatasetError: when the sample is not of this data set.
        """
        self._check(sample)
        identity = f"{DRAWING}/{self.size}/{self.seed}/{sample.path.as_posix()}"
        return sha256(identity.encode()).hexdigest()

    def _sound_twin(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Draw the image as it would be without its defect."""
        self._check(sample)
        return rendered(self.size, self.seed, sample)[2].copy()

    def _of(self, category: str) -> list[Sample]:
        kinds = CATALOGUE[category].defects
        anomalies = [
            (kinds[i % len(kinds)], i // len(kinds)) for i in range(self.test_anomalies)
        ]
        plan: list[tuple[Split, str, int]] = [
            *(("train", GOOD, i) for i in range(self.train_images)),
            *(("test", GOOD, i) for i in range(self.test_normals)),
            *(("test", kind, i) for kind, i in anomalies),
        ]
        return [_sample(category, *entry) for entry in plan]

    @cached_property
    def _known(self) -> frozenset[Sample]:
        return frozenset(self.samples)

    def _check(self, sample: Sample) -> None:
        if sample not in self._known:
            raise DatasetError(
                f"{sample.path}: not an image of this synthetic data set; "
                "expected one of its samples"
            )


def _sample(category: str, split: Split, kind: str, number: int) -> Sample:
    root = Path("synthetic") / category
    masks: tuple[Path, ...] = ()
    if kind != GOOD:
        masks = (root / "ground_truth" / kind / f"{number:03d}_mask.png",)
    path = root / split / kind / f"{number:03d}.png"
    return Sample(path, category, split, kind, masks)


def _check_count(name: str, value: int, least: int) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise DatasetError(
            f"synthetic: {name} = {value!r}, "
            f"expected a whole number of at least {least}"
        )


def _checked_categories(categories: Sequence[str] | None) -> tuple[str, ...]:
    if categories is None:
        return SYNTHETIC_CATEGORIES
    known = ", ".join(SYNTHETIC_CATEGORIES)
    if isinstance(categories, str) or not categories:
        raise DatasetError(
            f"synthetic: categories = {categories!r}, "
            f"expected a list with some of: {known}"
        )
    for category in categories:
        if category not in CATALOGUE:
            raise DatasetError(
                f"synthetic: unknown category {category!r}, expected one of: {known}"
            )
    if len(set(categories)) < len(categories):
        raise DatasetError(
            f"synthetic: categories = {list(categories)!r}, expected each one once"
        )
    return tuple(categories)
