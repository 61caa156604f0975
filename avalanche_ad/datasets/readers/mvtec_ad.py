"""MVTec AD: 15 categories, five textures and ten objects."""

from __future__ import annotations

from avalanche_ad.datasets.categories import MVTEC_AD_CATEGORIES
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.scanning import Scan, scan_official
from avalanche_ad.datasets.tree import Layout

__all__ = ["MVTEC_AD_CATEGORIES", "MVTecADReader"]


class MVTecADReader(DiskReader):
    """Read MVTec AD: ``<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    The mask of ``test/<defect>/000.png`` is ``ground_truth/<defect>/000_mask.png``.
    Zipper, screw and grid are grey.

    Reference: Bergmann et al., MVTec AD, CVPR 2019. Licence: CC BY-NC-SA 4.0.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all 15 otherwise. The order stays alphabetical.

    >>> print(next(MVTecADReader("MVTec").scan()))
    MVTec: folder not found; expected one folder per category: bottle, cable...
    """

    name = "mvtec_ad"

    def scan(self) -> Scan:
        """Yield samples and problems."""
        known = MVTEC_AD_CATEGORIES
        return scan_official(self.root, known, self.categories, Layout())
