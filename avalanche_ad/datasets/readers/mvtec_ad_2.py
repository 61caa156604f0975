"""MVTec AD 2: eight categories, photographed under several lighting conditions."""

from __future__ import annotations

from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.scanning import Scan, scan_official
from avalanche_ad.datasets.tree import Layout

__all__ = ["MVTEC_AD_2_CATEGORIES", "MVTecAD2Reader"]

MVTEC_AD_2_CATEGORIES = (
    "can",
    "fabric",
    "fruit_jelly",
    "rice",
    "sheet_metal",
    "vial",
    "wallplugs",
    "walnuts",
)


class MVTecAD2Reader(DiskReader):
    """Read MVTec AD 2: ``<category>/{train/good, test_public/{good,bad}}``.

    The mask of ``test_public/bad/000_regular.png`` is
    ``test_public/ground_truth/bad/000_regular_mask.png``. A name ends in the lighting
    of its image, such as ``_regular`` or ``_overexposed``. The only defect type is
    ``"bad"``.

    Not read are ``validation``, whose images are normal and belong to neither split,
    and ``test_private`` and ``test_private_mixed``, whose labels only the publisher's
    server knows: numbers on the public test images are not those of its leaderboard.

    Reference: Heckler-Kram et al., The MVTec AD 2 Dataset: Advanced Scenarios for
    Unsupervised Anomaly Detection, arXiv 2503.21622, 2025. Licence: CC BY-NC-SA 4.0.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all eight otherwise. The order stays alphabetical.

    >>> MVTecAD2Reader.layout.masks.format(defect="bad")
    'test_public/ground_truth/bad'
    """

    name = "mvtec_ad_2"
    layout = Layout(
        test="test_public",
        masks="test_public/ground_truth/{defect}",
        unused=("validation", "test_private", "test_private_mixed"),
    )

    def scan(self) -> Scan:
        """Yield samples and problems."""
        known = MVTEC_AD_2_CATEGORIES
        return scan_official(self.root, known, self.categories, self.layout)
