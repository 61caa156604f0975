"""Any folder in MVTec layout: every sub-folder with normal training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avalanche_ad.datasets.disk import DiskData, Problem
from avalanche_ad.datasets.sample import GOOD
from avalanche_ad.datasets.scanning import (
    Found,
    Layout,
    choose_categories,
    find_folders,
    ignored,
    missing_root,
    report_unreadable,
    scan_category,
    stray_images,
)

__all__ = ["read_folder", "scan_folder"]

_CONTENT = "<category>/train/good, <category>/test/<defect>, <category>/ground_truth"
_LAYOUT = Layout(mask_stems=("{stem}_mask", "{stem}"))


def read_folder(root: Path, categories: Sequence[str] | None = None) -> DiskData:
    """Open a folder ``<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    A category is a sub-folder with ``train/good``. Images are PNG, JPEG, BMP, TIFF or
    WebP, extensions in either case. The mask of ``test/<defect>/000.jpg`` is
    ``ground_truth/<defect>/000_mask`` or ``…/000``, with any of these extensions.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all otherwise. The order stays alphabetical.
    :raises DatasetError: at the first thing that would break training.
    """
    return DiskData.open("folder", scan_folder(root, categories))


@report_unreadable
def scan_folder(root: Path, categories: Sequence[str] | None = None) -> Found:
    """Yield samples and problems of a folder in MVTec layout; see ``read_folder``."""
    root = Path(root)
    if problem := missing_root(root, _CONTENT):
        yield problem
        return
    if (root / "train" / GOOD).is_dir():
        yield Problem(root, f"this is one category; give the folder above: {_CONTENT}")
        return
    folders = find_folders(root)
    known = [path.name for path in folders if (path / "train" / GOOD).is_dir()]
    if not known:
        yield Problem(root, f"no category found; expected {_CONTENT}")
        return
    yield from stray_images(root)
    for folder in folders:
        if folder.name not in known:
            yield ignored(folder, f"no train/{GOOD} in it")
    for category in choose_categories(root, known, categories):
        if isinstance(category, Problem):
            yield category
        else:
            yield from scan_category(root / category, category, _LAYOUT)
