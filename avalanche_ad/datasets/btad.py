"""BTAD, beanTech Anomaly Detection: three industrial products."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avalanche_ad.datasets.disk import DiskData
from avalanche_ad.datasets.scanning import Found, Layout, scan_official

__all__ = ["BTAD_CATEGORIES", "read_btad", "scan_btad"]

BTAD_CATEGORIES = ("01", "02", "03")

_LAYOUT = Layout(good="ok", mask_stems=("{stem}",))


def read_btad(root: Path, categories: Sequence[str] | None = None) -> DiskData:
    """Open BTAD: ``<category>/{train/ok, test/{ok,ko}, ground_truth/ko}``.

    A mask has its image's name but not always its extension: images and masks are PNG
    or BMP, differently in each category. The only defect type is ``"ko"``.

    Reference: Mishra et al., VT-ADL: A Vision Transformer Network for Image Anomaly
    Detection and Localization, ISIE 2021.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all three otherwise. The order stays 01, 02, 03.
    :raises DatasetError: at the first thing that would break training.
    """
    return DiskData.open("btad", scan_btad(root, categories))


def scan_btad(root: Path, categories: Sequence[str] | None = None) -> Found:
    """Yield samples and problems of BTAD; see ``read_btad``."""
    return scan_official(Path(root), BTAD_CATEGORIES, categories, _LAYOUT)
