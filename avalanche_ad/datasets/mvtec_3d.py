"""MVTec 3D-AD, its colour images: 10 categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avalanche_ad.datasets.disk import DiskData
from avalanche_ad.datasets.scanning import Found, Layout, scan_official

__all__ = ["MVTEC_3D_CATEGORIES", "read_mvtec_3d", "scan_mvtec_3d"]

MVTEC_3D_CATEGORIES = (
    "bagel",
    "cable_gland",
    "carrot",
    "cookie",
    "dowel",
    "foam",
    "peach",
    "potato",
    "rope",
    "tire",
)

_LAYOUT = Layout(
    images="rgb",
    masks="test/{defect}/gt",
    mask_stems=("{stem}",),
    unused=("validation",),
)


def read_mvtec_3d(root: Path, categories: Sequence[str] | None = None) -> DiskData:
    """Open MVTec 3D-AD: ``<category>/{train,test}/<type>/{rgb,gt}``, colour only.

    The point clouds in ``xyz`` are not read, nor is ``validation``, whose images are
    normal and belong to neither split. The all-zero masks of normal test images are
    not needed and not read.

    Reference: Bergmann et al., The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly
    Detection and Localization, VISAPP 2022. Licence: CC BY-NC-SA 4.0.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all 10 otherwise. The order stays alphabetical.
    :raises DatasetError: at the first thing that would break training.
    """
    return DiskData.open("mvtec_3d", scan_mvtec_3d(root, categories))


def scan_mvtec_3d(root: Path, categories: Sequence[str] | None = None) -> Found:
    """Yield samples and problems of MVTec 3D-AD; see ``read_mvtec_3d``."""
    return scan_official(Path(root), MVTEC_3D_CATEGORIES, categories, _LAYOUT)
