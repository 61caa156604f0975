"""The procedural data set, which needs no files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avalanche_ad.datasets.reader import DatasetReader
from avalanche_ad.datasets.sample import AnomalyData

__all__ = ["SyntheticReader"]


class SyntheticReader(DatasetReader):
    """Draw :class:`~avalanche_ad.datasets.synthetic.SyntheticAD`.

    :param root: not read.
    :param categories: which categories, in which order; all otherwise.
    :param seed: another seed gives another data set of the same kind.
    :param train_images: normal training images per category.
    :param test_normals: normal test images per category.
    :param test_anomalies: defective test images per category.

    >>> SyntheticReader(categories=["bolt"], train_images=4).open(32).categories
    ('bolt',)
    """

    name = "synthetic"
    needs_root = False

    def __init__(
        self,
        root: Path | str | None = None,
        categories: Sequence[str] | None = None,
        *,
        seed: int = 0,
        train_images: int = 64,
        test_normals: int = 24,
        test_anomalies: int = 30,
    ) -> None:
        super().__init__(root, categories)
        self.seed = seed
        self.train_images = train_images
        self.test_normals = test_normals
        self.test_anomalies = test_anomalies

    def open(self, image_size: int = 128) -> AnomalyData:
        """Return the data set, drawn at a size.

        :param image_size: side of the images in pixels.
        :raises DatasetError: when an argument is out of range.
        """
        # SciPy takes its time, which others need not wait for
        from avalanche_ad.datasets.synthetic import SyntheticAD

        return SyntheticAD(
            image_size,
            self.seed,
            self.train_images,
            self.test_normals,
            self.test_anomalies,
            self.categories,
        )
