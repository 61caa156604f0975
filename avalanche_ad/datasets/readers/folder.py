"""Any folder in MVTec layout: every sub-folder with normal training images."""

from __future__ import annotations

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.sample import GOOD
from avalanche_ad.datasets.scanning import (
    Layout,
    Scan,
    choose_categories,
    find_folders,
    ignored,
    missing_root,
    scan_category,
    stray_images,
)

__all__ = ["FolderReader"]

_CONTENT = "<category>/train/good, <category>/test/<defect>, <category>/ground_truth"
_LAYOUT = Layout(mask_stems=("{stem}_mask", "{stem}"))


class FolderReader(DiskReader):
    """Read ``<category>/{train/good, test/<defect>, ground_truth/<defect>}``.

    A category is a sub-folder with ``train/good``. Images are PNG, JPEG, BMP, TIFF or
    WebP, extensions in either case. The mask of ``test/<defect>/000.jpg`` is
    ``ground_truth/<defect>/000_mask`` or ``…/000``, with any of these extensions.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all otherwise. The order stays alphabetical.

    >>> print(next(FolderReader("parts").scan()))
    parts: folder not found; expected <category>/train/good, <category>/test/<defect>...
    """

    name = "folder"

    def scan(self) -> Scan:
        """Yield samples and problems."""
        if problem := missing_root(self.root, _CONTENT):
            yield problem
            return
        if (self.root / "train" / GOOD).is_dir():
            yield Problem(
                self.root, f"this is one category; give the folder above: {_CONTENT}"
            )
            return
        folders = find_folders(self.root)
        known = [path.name for path in folders if (path / "train" / GOOD).is_dir()]
        if not known:
            yield Problem(self.root, f"no category found; expected {_CONTENT}")
            return
        yield from stray_images(self.root)
        for folder in folders:
            if folder.name not in known:
                yield ignored(folder, f"no train/{GOOD} in it")
        for category in choose_categories(self.root, known, self.categories):
            if isinstance(category, Problem):
                yield category
            else:
                yield from scan_category(self.root / category, category, _LAYOUT)
