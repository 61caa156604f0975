"""What all readers share: folders listed, categories chosen, trees walked.

A scan is a generator of samples, in order, and of problems as it meets them. Opening
a data set stops at the first error; checking one collects them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeAlias

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.loading import IMAGE_SUFFIXES
from avalanche_ad.datasets.sample import Sample
from avalanche_ad.datasets.tree import Layout
from avalanche_ad.errors import counted

__all__ = [
    "Scan",
    "choose_categories",
    "count_images",
    "find_folders",
    "ignored",
    "is_system_file",
    "list_images",
    "missing_category",
    "missing_root",
    "report_unreadable",
    "scan_category",
    "scan_official",
    "stray_images",
    "unknown_folders",
]

Scan: TypeAlias = Iterator[Sample | Problem]
"""A data set's samples, category by category, and its problems as met."""

_Arguments = ParamSpec("_Arguments")

_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SHOWN_NAMES = 8
_MOST_COUNTED = 10_000
_SUFFIXES = f"({', '.join(sorted(IMAGE_SUFFIXES))})"


def report_unreadable(
    scan: Callable[_Arguments, Scan],
) -> Callable[_Arguments, Scan]:
    """Let a scan report a folder that may not be read, instead of failing there.

    :param scan: a generator of samples and problems.
    :return: the same, with an ``OSError`` as its last problem.
    """

    @wraps(scan)
    def guarded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Scan:
        try:
            yield from scan(*args, **kwargs)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            where = Path(error.filename or ".")
            yield Problem(
                where, f"cannot be read: {reason}; check it and its permissions"
            )

    return guarded


def missing_root(root: Path, content: str) -> Problem | None:
    """Return the problem of a root that is not a readable folder.

    :param root: the data set's folder.
    :param content: what it should hold, for the message.
    """
    if root.is_dir():
        return None
    if root.exists():
        return Problem(root, f"not a folder; unpack it first; expected {content}")
    return Problem(root, f"folder not found; expected {content}")


def choose_categories(
    root: Path, known: Sequence[str], asked: Sequence[str] | None
) -> Iterator[str | Problem]:
    """Yield the categories asked for, in the data set's own order, and the problems.

    :param root: the data set's folder, for the messages.
    :param known: all categories, in the data set's own order.
    :param asked: a selection in any order, or ``None`` for all.
    """
    if asked is None:
        yield from known
        return
    if isinstance(asked, str):
        asked = [asked]
    for category in dict.fromkeys(asked):
        if category not in known:
            close = get_close_matches(category, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            names = ", ".join(known) or "none"
            yield Problem(root, f"unknown category {category!r}; {hint}Known: {names}")
    yield from (category for category in known if category in asked)
    if not asked:
        yield Problem(root, "no category asked for; name at least one, or leave it out")


def scan_official(
    root: Path,
    official: Sequence[str],
    asked: Sequence[str] | None,
    layout: Layout,
) -> Scan:
    """Scan a published data set whose categories are folders below the root.

    :param root: the data set's folder.
    :param official: its categories, in the official order.
    :param asked: a selection, or ``None`` for all.
    :param layout: where a category keeps its images and masks.
    """
    content = f"one folder per category: {', '.join(official)}"
    if problem := missing_root(root, content):
        yield problem
        return
    if not any((root / category).is_dir() for category in official):
        found = _names(folder.name for folder in find_folders(root))
        yield Problem(root, f"no category found; expected {content}; found {found}")
        return
    yield from unknown_folders(root, official, "no category of this data set")
    for category in choose_categories(root, official, asked):
        if isinstance(category, Problem):
            yield category
        elif not (root / category).is_dir():
            yield missing_category(root / category)
        else:
            yield from scan_category(root / category, category, layout)


def missing_category(folder: Path) -> Problem:
    """Return the problem of a category whose folder is not there.

    :param folder: where it should be; its name is the category's.
    """
    return Problem(
        folder,
        f"folder of category {folder.name!r} not found; unpack it there, or name the "
        "categories to use",
    )


@report_unreadable
def scan_category(folder: Path, category: str, layout: Layout) -> Scan:
    """Scan one category: ``train/<good>``, ``test/<defect>`` and the masks.

    :param folder: the category's folder.
    :param category: its name.
    :param layout: where it keeps its images and masks.
    """
    yield from _scan_train(folder / "train", category, layout)
    yield from _scan_test(folder, category, layout)
    test, masks = folder / layout.test, _masks_folder(folder, layout)
    top = masks.relative_to(folder).parts[0]
    known = ("train", layout.test, top, *layout.unused)
    yield from unknown_folders(folder, known, f"neither train nor {layout.test}")
    if masks != test:
        used = [path.name for path in find_folders(test)]
        reason = f"masks without a folder of this name in {layout.test}"
        yield from unknown_folders(masks, (*used, layout.good), reason)


def _masks_folder(folder: Path, layout: Layout) -> Path:
    """Return the folder that holds those of the defects' masks."""
    return folder / layout.masks.partition("{defect}")[0]


def _scan_train(folder: Path, category: str, layout: Layout) -> Scan:
    good = folder / layout.good / layout.images
    images, problems = list_images(good)
    yield from problems
    if not images:
        deeper = count_images(good)
        hint = f"; {counted(deeper, 'image')} in folders inside it: move them up"
        yield Problem(
            good,
            f"no training image; expected files {_SUFFIXES}{hint if deeper else ''}",
        )
    for path in images.values():
        yield Sample(path, category, "train")
    reason = f"training uses only the normal images in {layout.good!r}"
    for other in find_folders(folder):
        if other.name != layout.good:
            yield ignored(other, reason)
    yield from stray_images(folder)


def _scan_test(folder: Path, category: str, layout: Layout) -> Scan:
    test = folder / layout.test
    for defect in find_folders(test):
        if defect == _masks_folder(folder, layout):
            continue
        images, problems = list_images(defect / layout.images)
        yield from problems
        if not images:
            # what there is in folders inside it has been counted
            yield Problem(defect, f"ignored: no image in it {_SUFFIXES}", "note")
        elif defect.name == layout.good:
            for path in images.values():
                yield Sample(path, category, "test")
        else:
            yield from _pair_masks(folder, category, layout, defect.name, images)
    yield from stray_images(test)


def _pair_masks(
    folder: Path, category: str, layout: Layout, defect: str, images: dict[str, Path]
) -> Scan:
    """Yield the anomalous images of one defect, each with where its mask should be."""
    mask_folder = folder / layout.masks.format(defect=defect)
    if layout.mask_folders:
        yield from _pair_folders(mask_folder, category, defect, images)
        return
    masks, problems = list_images(mask_folder)
    yield from problems
    used = set()
    for stem, path in images.items():
        names = [name.format(stem=stem) for name in layout.mask_stems]
        name = next((name for name in names if name in masks), None)
        mask = masks[name] if name else mask_folder / f"{names[0]}.png"
        yield Sample(path, category, "test", defect, (mask,))
        used.add(name)
    if len(masks) > 1 and not used & masks.keys():
        stem, path = next(iter(images.items()))
        wanted = " or ".join(name.format(stem=stem) for name in layout.mask_stems)
        reason = f"no mask is named after its image, such as {wanted} of {path.name}"
        yield ignored(mask_folder, reason)
        return
    for name, mask in masks.items():
        if name not in used:
            yield ignored(mask, "mask without an image")


def _pair_folders(
    mask_folder: Path, category: str, defect: str, images: dict[str, Path]
) -> Scan:
    """Yield the anomalous images of one defect, each with a folder of masks."""
    for stem, path in images.items():
        masks, problems = list_images(mask_folder / stem)
        yield from problems
        paths = tuple(masks.values()) or (mask_folder / stem / "000.png",)
        yield Sample(path, category, "test", defect, paths)
    yield from unknown_folders(mask_folder, tuple(images), "masks without an image")


def is_system_file(path: Path, root: Path | None = None) -> bool:
    """Whether a file or folder is the system's or hidden, and nobody's image.

    Names that begin with a dot (macOS leaves ``._000.png`` beside ``000.png``),
    ``Thumbs.db``, ``desktop.ini`` and ``__MACOSX``, and all that is in such a folder.

    :param path: a file or folder.
    :param root: the folder that was searched: what it is itself in does not count.
        Without it, hidden folders of a relative path count, of an absolute they do not.
    """
    if root is not None:
        path = path.relative_to(root)
    if any(name.lower() in _SYSTEM_NAMES for name in path.parts):
        return True
    names = (path.name,) if path.is_absolute() else path.parts
    return any(name.startswith(".") and name != ".." for name in names)


def find_folders(folder: Path) -> list[Path]:
    """Return the visible folders inside a folder, by name; none if it is missing."""
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir(), key=lambda path: path.name)
    return [
        path for path in entries if path.is_dir() and not is_system_file(path, folder)
    ]


def ignored(path: Path, reason: str) -> Problem:
    """Return the note of a file or folder that is passed over.

    :param path: the file or folder; the images in a folder, and below it, are counted.
    :param reason: why it is passed over.
    """
    if not path.is_dir():
        return Problem(path, f"ignored: {reason}", "note", files=1)
    count = count_images(path)
    least = "at least " if count >= _MOST_COUNTED else ""
    lost = f"; {least}{counted(count, 'image')} in it" if count else ""
    return Problem(path, f"ignored: {reason}{lost}", "note", files=count)


def count_images(folder: Path) -> int:
    """Count the images in a folder and below it, hidden ones left out.

    It stops at 10,000, or when it has seen ten times as many files: a folder beside
    the data may hold anything.
    """
    count = seen = 0
    for _where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_system_file(Path(name))]
        count += sum(_is_image_name(name) for name in names)
        seen += len(names)
        if count >= _MOST_COUNTED or seen >= 10 * _MOST_COUNTED:
            break
    return count


def unknown_folders(folder: Path, known: Sequence[str], reason: str) -> Scan:
    """Yield notes of a folder's own images, and of folders with images not known.

    :param folder: the folder; may be missing.
    :param known: names of the folders that are read.
    :param reason: why the others are not.
    """
    yield from stray_images(folder)
    for other in find_folders(folder):
        if other.name not in known and count_images(other):
            yield ignored(other, reason)


def stray_images(folder: Path) -> Scan:
    """Yield a note where images lie in a folder that should only hold folders."""
    entries = folder.iterdir() if folder.is_dir() else iter(())
    count = sum(_is_image_name(path.name) and not path.is_dir() for path in entries)
    if count:
        verb = "lies" if count == 1 else "lie"
        message = f"ignored: {counted(count, 'image')} that {verb} in it, in no folder"
        yield Problem(folder, message, "note", files=count)


def _is_image_name(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return suffix in IMAGE_SUFFIXES and not is_system_file(Path(name))


def list_images(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """Return a folder's images by stem, sorted by name, and what is odd about it.

    :param folder: the folder; may be missing.
    """
    images: dict[str, Path] = {}
    problems = []
    entries = folder.iterdir() if folder.is_dir() else iter(())
    for path in sorted(entries, key=lambda path: path.name):
        if is_system_file(Path(path.name)):
            continue
        if not path.exists():
            reason = "link to a file that is not there; restore it or remove the link"
            problems.append(Problem(path, reason))
        elif path.is_dir():
            problems.append(ignored(path, "a folder among images"))
        elif path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            problems.append(ignored(path, "not an image"))
        elif path.stem in images:
            other = images[path.stem].name
            problems.append(
                Problem(path, f"same name as {other}; remove or rename one of the two")
            )
        else:
            images[path.stem] = path
    return images, problems


def _names(names: Iterable[str]) -> str:
    """Return names for a message, cut to a readable number."""
    listed = list(names)
    shown = ", ".join(listed[:_SHOWN_NAMES]) or "no folder"
    return shown + (", …" if len(listed) > _SHOWN_NAMES else "")
