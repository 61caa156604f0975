"""Where a category keeps its images and masks."""

from __future__ import annotations

from dataclasses import dataclass

from avalanche_ad.datasets.sample import GOOD

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Where a category keeps its images and masks.

    :param good: folder name of normal images, below ``train`` and ``test``.
    :param images: folder of the images below a defect's folder.
    :param masks: folder of a defect's masks below the category; ``{defect}`` is filled.
    :param mask_stems: names of an image's mask without its extension, the first that
        exists is taken; ``{stem}`` is filled.
    :param mask_folders: whether an image has a folder of masks instead of one mask, by
        the same name.
    :param test: folder of the test images below the category.
    :param unused: folders of a category that are known to be no part of it.

    >>> Layout(masks="masks/{defect}").masks.format(defect="cut")
    'masks/cut'
    """

    good: str = GOOD
    images: str = "."
    masks: str = "ground_truth/{defect}"
    mask_stems: tuple[str, ...] = ("{stem}_mask",)
    mask_folders: bool = False
    test: str = "test"
    unused: tuple[str, ...] = ()
