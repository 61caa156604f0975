"""BTAD, beanTech Anomaly Detection: three industrial products."""

from __future__ import annotations

from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.scanning import Scan, scan_official
from avalanche_ad.datasets.tree import Layout

__all__ = ["BTAD_CATEGORIES", "BTADReader"]

BTAD_CATEGORIES = ("01", "02", "03")


class BTADReader(DiskReader):
    """Read BTAD: ``<category>/{train/ok, test/{ok,ko}, ground_truth/ko}``.

    A mask has its image's name but not always its extension: images and masks are PNG
    or BMP, differently in each category. The only defect type is ``"ko"``.

    Reference: Mishra et al., VT-ADL: A Vision Transformer Network for Image Anomaly
    Detection and Localization, ISIE 2021.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all three otherwise. The order stays 01, 02, 03.

    >>> print(next(BTADReader("BTech").scan()))
    BTech: folder not found; expected one folder per category: 01, 02, 03
    """

    name = "btad"
    layout = Layout(good="ok", mask_stems=("{stem}",))

    def scan(self) -> Scan:
        """Yield samples and problems."""
        return scan_official(self.root, BTAD_CATEGORIES, self.categories, self.layout)
