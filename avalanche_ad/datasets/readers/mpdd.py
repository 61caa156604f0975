"""MPDD, metal parts: six categories under changing positions and lighting."""

from __future__ import annotations

from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.scanning import Scan, scan_official
from avalanche_ad.datasets.tree import Layout

__all__ = ["MPDD_CATEGORIES", "MPDDReader"]

MPDD_CATEGORIES = (
    "bracket_black",
    "bracket_brown",
    "bracket_white",
    "connector",
    "metal_plate",
    "tubes",
)


class MPDDReader(DiskReader):
    """Read MPDD: ``<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    As in MVTec AD, the mask of ``test/<defect>/000.png`` is
    ``ground_truth/<defect>/000_mask.png``.

    Reference: Jezek et al., Deep learning-based defect detection of metal parts:
    evaluating current methods in complex conditions, ICUMT 2021. Licence: CC BY-NC-SA
    4.0.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all six otherwise. The order stays alphabetical.

    >>> print(next(MPDDReader("MPDD").scan()))
    MPDD: folder not found; expected one folder per category: bracket_black, bracket...
    """

    name = "mpdd"

    def scan(self) -> Scan:
        """Yield samples and problems."""
        return scan_official(self.root, MPDD_CATEGORIES, self.categories, Layout())
