"""MVTec 3D-AD, its colour images: 10 categories."""

from __future__ import annotations

from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.scanning import Scan, scan_official
from avalanche_ad.datasets.tree import Layout

__all__ = ["MVTEC_3D_CATEGORIES", "MVTec3DReader"]

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


class MVTec3DReader(DiskReader):
    """Read MVTec 3D-AD: ``<category>/{train,test}/<type>/{rgb,gt}``, colour only.

    The point clouds in ``xyz`` are not read, nor is ``validation``, whose images are
    normal and belong to neither split. The all-zero masks of normal test images are
    not needed and not read.

    Reference: Bergmann et al., The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly
    Detection and Localization, VISAPP 2022. Licence: CC BY-NC-SA 4.0.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all 10 otherwise. The order stays alphabetical.

    >>> MVTec3DReader.layout.masks.format(defect="cut")
    'test/cut/gt'
    """

    name = "mvtec_3d"
    layout = Layout(
        images="rgb",
        masks="test/{defect}/gt",
        mask_stems=("{stem}",),
        unused=("validation",),
    )

    def scan(self) -> Scan:
        """Yield samples and problems."""
        known = MVTEC_3D_CATEGORIES
        return scan_official(self.root, known, self.categories, self.layout)
