"""A data set's training images with painted defects, as a data set."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets.painting import PAINTING_RULES, paint_defects
from avalanche_ad.datasets.sample import AnomalyData, Sample

__all__ = ["PaintedDefects"]


class PaintedDefects:
    """The training images of a data set, each once, with defects painted on.

    An :class:`~avalanche_ad.datasets.AnomalyData`: features of its images are cached
    like those of others. What is painted on an image is decided by its category and
    the name of its file.

    :param data: the data set.

    >>> from avalanche_ad.datasets import SyntheticAD
    >>> painted = PaintedDefects(SyntheticAD(64, train_images=2, categories=["gear"]))
    >>> len(painted.samples), painted.samples[0].defect_type
    (2, 'painted')
    >>> painted.image(painted.samples[0]).shape
    (64, 64, 3)
    """

    def __init__(self, data: AnomalyData) -> None:
        self.data = data
        self._normal = {
            self.sample_of(one): one for one in data.samples if one.split == "train"
        }

    @staticmethod
    def sample_of(normal: Sample) -> Sample:
        """Return the sample that a training image becomes."""
        return replace(normal, defect_type="painted")

    @property
    def name(self) -> str:
        """Name of the data set, and that it is painted on."""
        return f"{self.data.name}, painted"

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories, in the data set's own order."""
        return self.data.categories

    @property
    def samples(self) -> Sequence[Sample]:
        """The training images."""
        return list(self._normal)

    def image(self, sample: Sample) -> npt.NDArray[np.uint8]:
        """Return the image with its defects, (H, W, 3)."""
        return self._painted(sample)[0]

    def mask(self, sample: Sample) -> npt.NDArray[np.bool_]:
        """Return where it is painted on, (H, W)."""
        return self._painted(sample)[1]

    def fingerprint(self, sample: Sample) -> str:
        """Return a digest of the image and of how it is painted on."""
        return self.fingerprint_from(
            sample, self.data.fingerprint(self._normal[sample])
        )

    @staticmethod
    def fingerprint_from(sample: Sample, normal: str) -> str:
        """Return :meth:`fingerprint` from that of the image itself."""
        return f"{normal} painted {PAINTING_RULES} {_seed(sample)}"

    def _painted(
        self, sample: Sample
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        image = self.data.image(self._normal[sample])
        return paint_defects(image, np.random.default_rng(_seed(sample)))


def _seed(sample: Sample) -> int:
    return zlib.crc32(f"{sample.category}/{sample.path.name}".encode())
