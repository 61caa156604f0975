"""MVTec AD: 15 categories, five textures and ten objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avalanche_ad.datasets.disk import DiskData
from avalanche_ad.datasets.scanning import Found, Layout, scan_official

__all__ = ["MVTEC_AD_CATEGORIES", "read_mvtec_ad", "scan_mvtec_ad"]

MVTEC_AD_CATEGORIES = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)


def read_mvtec_ad(root: Path, categories: Sequence[str] | None = None) -> DiskData:
    """Open MVTec AD: ``<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    The mask of ``test/<defect>/000.png`` is ``ground_truth/<defect>/000_mask.png``.
    Zipper, screw and grid are grey.

    Reference: Bergmann et al., MVTec AD, CVPR 2019. Licence: CC BY-NC-SA 4.0.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all 15 otherwise. The order stays alphabetical.
    :raises DatasetError: at the first thing that would break training.
    """
    return DiskData.open("mvtec_ad", scan_mvtec_ad(root, categories))


def scan_mvtec_ad(root: Path, categories: Sequence[str] | None = None) -> Found:
    """Yield samples and problems of MVTec AD; see ``read_mvtec_ad``."""
    return scan_official(Path(root), MVTEC_AD_CATEGORIES, categories, Layout())
