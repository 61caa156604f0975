"""Any folder of images: every sub-folder with normal training images is a category."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.places import Places, find_place, scan_places
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.scanning import (
    Scan,
    choose_categories,
    find_folders,
    ignored,
    missing_root,
    scan_category,
    stray_images,
)
from avalanche_ad.datasets.tree import Layout

__all__ = ["FolderReader"]

_CONTENT = "<category>/train/good, <category>/test/<defect>, <category>/ground_truth"
_LAYOUT = Layout(mask_stems=("{stem}_mask", "{stem}"))
_DEFAULT = Places()


class FolderReader(DiskReader):
    """Read ``<category>/{train/good, test/<defect>, ground_truth/<defect>}``, or more.

    A category is a sub-folder with ``train/good``, in any case. Images are PNG, JPEG,
    BMP, TIFF or WebP, extensions in either case. The mask of
    ``test/<defect>/000.jpg`` is ``ground_truth/<defect>/000_mask`` or ``…/000``, with
    any of these extensions.

    With one of the options below the folders of each category are what they say; those
    it has not are passed over, and a name that matches none matches one in another
    case. Folders are then read with all that is below them. An image's defect is named
    by the folders between ``abnormal_dir`` and the image, or by ``abnormal_dir`` itself
    where there are none. Its mask is looked for under the same folders of ``mask_dir``,
    or right in it where no other image has the name. Where masks are in a folder for
    each image, ``ground_truth/<defect>/000/``, their union is its mask.

    :param root: the folder that holds the category folders.
    :param categories: a selection; all otherwise. The order stays alphabetical.
    :param normal_dir: one or several folders of normal images to train on,
        ``"train/good"`` by default.
    :param normal_test_dir: of normal images to test on, ``"test/good"`` by default.
    :param abnormal_dir: of anomalous images, ``"test"`` by default.
    :param mask_dir: the folder of masks, ``"ground_truth"`` by default.
    :param normal_split_ratio: share of the normal images that are held out for tests
        where there are no others.
    :param split_seed: decides which.
    :raises DatasetError: when a folder's name leads out of its category.

    >>> print(next(FolderReader("parts").scan()))
    parts: folder not found; expected <category>/train/good, <category>/test/<defect>...
    >>> print(next(FolderReader("parts", normal_dir="ok", abnormal_dir="ng").scan()))
    parts: folder not found; expected <category>/ok, <category>/ng
    """

    name = "folder"

    def __init__(
        self,
        root: Path | str | None = None,
        categories: Sequence[str] | None = None,
        *,
        normal_dir: str | Sequence[str] | None = None,
        normal_test_dir: str | Sequence[str] | None = None,
        abnormal_dir: str | Sequence[str] | None = None,
        mask_dir: str | None = None,
        normal_split_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        split_seed: int = 0,
    ) -> None:
        super().__init__(root, categories)
        self.places = Places(
            normal=_names(normal_dir, _DEFAULT.normal),
            normal_test=_names(normal_test_dir, _DEFAULT.normal_test),
            abnormal=_names(abnormal_dir, _DEFAULT.abnormal),
            masks=_DEFAULT.masks if mask_dir is None else mask_dir,
            ratio=normal_split_ratio,
            seed=split_seed,
        )
        named = (normal_dir, normal_test_dir, abnormal_dir, mask_dir)
        self._plain = named == (None,) * len(named) and not normal_split_ratio

    def scan(self) -> Scan:
        """Yield samples and problems."""
        places, content = self.places, _CONTENT
        if not self._plain:
            shown = (*places.normal[:1], *places.abnormal[:1])
            content = ", ".join(f"<category>/{name}" for name in shown)
        if problem := missing_root(self.root, content):
            yield problem
            return
        if places.normal != (".",) and places.has_normal(self.root):
            yield Problem(
                self.root, f"this is one category; give the folder above: {content}"
            )
            return
        folders = find_folders(self.root)
        known = [path.name for path in folders if places.has_normal(path)]
        if not known:
            yield Problem(self.root, f"no category found; expected {content}")
            return
        yield from stray_images(self.root)
        for folder in folders:
            if folder.name not in known:
                yield ignored(folder, f"no {' or '.join(places.normal)} in it")
        for category in choose_categories(self.root, known, self.categories):
            if isinstance(category, Problem):
                yield category
                continue
            folder = self.root / category
            if self._plain and _as_spelt(folder) and not _has_mask_folders(folder):
                yield from scan_category(folder, category, _LAYOUT)
            else:
                yield from scan_places(folder, category, places)


def _names(
    given: str | Sequence[str] | None, default: tuple[str, ...]
) -> tuple[str, ...]:
    if given is None:
        return default
    return (given,) if isinstance(given, str) else tuple(given)


def _as_spelt(category: Path) -> bool:
    """Whether no folder has its usual name in another case, such as ``test/Good``."""
    normal = (*_DEFAULT.normal, *_DEFAULT.normal_test)
    usual = (*normal, *_DEFAULT.abnormal, _DEFAULT.masks)
    return all(find_place(category, name) in (None, category / name) for name in usual)


def _has_mask_folders(category: Path) -> bool:
    """Whether masks are in a folder for each image, as in MVTec LOCO."""
    defects = find_folders(category / _DEFAULT.masks)
    return any(find_folders(defect) for defect in defects)
