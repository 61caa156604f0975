"""Categories whose folders have any names: normal, abnormal and masks, as told."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.loading import IMAGE_SUFFIXES
from avalanche_ad.datasets.sample import GOOD, Sample
from avalanche_ad.datasets.scanning import (
    Scan,
    count_images,
    find_folders,
    ignored,
    is_system_file,
    report_unreadable,
    stray_images,
)
from avalanche_ad.errors import DatasetError, counted

__all__ = ["Places", "find_place", "held_out", "scan_places"]


@dataclass(frozen=True)
class Places:
    """What folders of a category are called, each below the category's own.

    Of several names those are read that a category has. Names that match no folder may
    match one, and only one, in another case.

    :param normal: normal images to train on, in these folders and below.
    :param normal_test: normal images to test on.
    :param abnormal: anomalous images; the folders below one name the defect, itself it
        names it where there is none.
    :param masks: masks of the anomalous images.
    :param ratio: share of the normal images that are held out for tests, where there
        are no others.
    :param seed: decides which.

    >>> Places(normal=("ok",), abnormal=("ng",)).masks
    'ground_truth'
    """

    normal: tuple[str, ...] = (f"train/{GOOD}",)
    normal_test: tuple[str, ...] = (f"test/{GOOD}",)
    abnormal: tuple[str, ...] = ("test",)
    masks: str = "ground_truth"
    ratio: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.normal:
            raise DatasetError("normal_dir: expected at least one folder, got none")
        options = {
            "normal_dir": self.normal,
            "normal_test_dir": self.normal_test,
            "abnormal_dir": self.abnormal,
            "mask_dir": (self.masks,),
        }
        for option, names in options.items():
            for name in names:
                if not name or Path(name).is_absolute() or ".." in Path(name).parts:
                    raise DatasetError(
                        f"{option} {name!r}: expected a folder inside every "
                        "category's, such as 'ok' or 'train/ok'"
                    )

    def has_normal(self, category: Path) -> bool:
        """Whether a folder holds one of normal images, as a category does."""
        return any(find_place(category, name) for name in self.normal)


@dataclass
class _Found:
    """The folders of one category, as they are on disk."""

    normal: list[Path]
    normal_test: list[Path]
    abnormal: list[Path]
    masks: list[Path]

    @property
    def every(self) -> list[Path]:
        return [*self.normal, *self.normal_test, *self.abnormal, *self.masks]


def find_place(folder: Path, name: str) -> Path | None:
    """Return the folder of a name inside another, none if there is none.

    Each part of the name is matched as it is, or else in any case.

    :raises DatasetError: when several match in another case only.
    """
    for part in Path(name).parts:
        inside = find_folders(folder)
        alike = [one for one in inside if one.name.lower() == part.lower()]
        exact = [one for one in alike if one.name == part]
        if len(alike) > 1 and not exact:
            names = " and ".join(one.name for one in alike)
            raise DatasetError(
                f"{folder}: which folder is {part!r}, {names}? Name it as it is spelt"
            )
        if not alike:
            return None
        folder = (exact or alike)[0]
    return folder


def held_out(names: Sequence[str], ratio: float, seed: int) -> set[str]:
    """Return which of some images are held out: always the same for the same names.

    Those whose digest with the seed is lowest, so that further images change little.

    :param names: of the images.
    :param ratio: share of them; at least one of two is held out and one stays.
    :param seed: decides which.

    >>> sorted(held_out(["a", "b", "c", "d", "e"], 0.4, seed=0))
    ['c', 'd']
    """
    if ratio <= 0:
        return set()
    count = min(max(round(ratio * len(names)), 1), len(names) - 1)

    def digest(name: str) -> bytes:
        return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()

    return set(sorted(names, key=digest)[:count])


@report_unreadable
def scan_places(folder: Path, category: str, places: Places) -> Scan:
    """Scan one category by the names of its folders.

    :param folder: the category's folder.
    :param category: its name.
    :param places: what its folders are called.
    """
    try:
        found = _find(folder, places)
    except DatasetError as error:
        yield Problem(folder, str(error).removeprefix(f"{folder}: "))
        return
    for one, more in _twice(found):
        yield Problem(one, f"named as {more}: expected another folder for each")
        return
    yield from _scan_normal(folder, category, places, found)
    yield from _scan_abnormal(category, found)
    yield from _unread(folder, found.every)


def _find(folder: Path, places: Places) -> _Found:
    def there(names: Sequence[str]) -> list[Path]:
        every = (find_place(folder, name) for name in names)
        return list(dict.fromkeys(one for one in every if one is not None))

    normal, test = there(places.normal), there(places.normal_test)
    abnormal, masks = there(places.abnormal), there([places.masks])
    return _Found(normal, test, abnormal, masks)


def _twice(found: _Found) -> Iterator[tuple[Path, str]]:
    """Yield folders that are named as two things."""
    sorts = {
        "normal_dir": found.normal,
        "normal_test_dir": found.normal_test,
        "abnormal_dir": found.abnormal,
        "mask_dir": found.masks,
    }
    for one, count in Counter(found.every).items():
        if count > 1:
            yield one, " and ".join(name for name, of in sorts.items() if one in of)


def _scan_normal(folder: Path, category: str, places: Places, found: _Found) -> Scan:
    train, test = [], []
    for root in found.normal:
        images, problems = _images(root, found.every)
        yield from problems
        train += images
    for root in found.normal_test:
        images, problems = _images(root, found.every)
        yield from problems
        test += images
    if not train:
        where = found.normal[0] if found.normal else folder / places.normal[0]
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        yield Problem(where, f"no training image; expected files ({kinds})")
    names = {path: path.relative_to(folder).as_posix() for path in train}
    apart = set() if test else held_out([*names.values()], places.ratio, places.seed)
    for path, name in names.items():
        yield Sample(path, category, "test" if name in apart else "train")
    for path in test:
        yield Sample(path, category, "test")


def _scan_abnormal(category: str, found: _Found) -> Scan:
    """Yield the anomalous images, each with the masks that there are of it."""
    images: list[tuple[Path, Path]] = []
    for root in found.abnormal:
        below, problems = _images(root, found.every)
        yield from problems
        # normal images beside those folders would be taken for defects
        mixed = any(root in one.parents for one in (*found.normal, *found.normal_test))
        direct = [path for path in below if path.parent == root]
        if mixed and direct:
            yield from stray_images(root)
            below = [path for path in below if path.parent != root]
        images += [(root, path) for path in below]
    stems = Counter(path.stem for _, path in images)
    known, unmasked = _Masks(found.masks), []
    for root, path in images:
        inside = path.parent.relative_to(root).as_posix()
        defect = root.name if inside == "." else inside
        if defect == GOOD:
            yield Problem(
                path,
                f"in a folder {GOOD!r} of anomalous images; expected it to be named as "
                "normal_test_dir, or another name",
            )
            continue
        try:
            masks = known.of(root, path, alone=stems[path.stem] == 1)
        except DatasetError as error:
            at, _, reason = str(error).partition(": ")
            yield Problem(Path(at), reason)
            continue
        if not masks:
            unmasked.append(path)
        yield Sample(path, category, "test", defect, masks)
    for where in found.masks:
        if unmasked:
            count = counted(len(unmasked), "anomalous image")
            text = f"no mask in it for {count}, such as {unmasked[0]}"
            yield Problem(where, text, "note")
        left = [path for path in _images(where, ())[0] if path not in known.used]
        if left:
            text = f"ignored: {counted(len(left), 'mask')} without an image, such as "
            yield Problem(where, f"{text}{left[0].name}", "note", files=len(left))


class _Masks:
    """The masks in some folders, by the names of their images."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.used: set[Path] = set()
        self._inside: dict[Path, dict[str, list[Path]]] = {}

    def of(self, root: Path, image: Path, alone: bool) -> tuple[Path, ...]:
        """Return an image's masks, none where there are none.

        :param root: the folder of anomalous images that it is in.
        :param alone: whether no other anomalous image of the category has its name, so
            that its masks need not be in a folder of their own.
        :raises DatasetError: when a mask is of two images, or two files are one's mask.
        """
        inside = image.parent.relative_to(root)
        for folder in self.folders:
            wheres = [folder / root.name / inside, folder / inside]
            if alone:
                wheres += [folder / root.name, folder]
            for where in wheres:
                if where == folder and not alone:
                    continue
                for name in (f"{image.stem}_mask", image.stem):
                    if masks := self._named(where, name):
                        self._use(image, masks)
                        return masks
        return ()

    def _use(self, image: Path, masks: Sequence[Path]) -> None:
        for mask in masks:
            if mask in self.used:
                raise DatasetError(
                    f"{image}: its mask {mask} is another image's too; rename one of "
                    "the two, or keep masks in folders named as those of the images"
                )
            self.used.add(mask)

    def _named(self, folder: Path, name: str) -> tuple[Path, ...]:
        """Return the file of a name, or the files in a folder of it."""
        if folder not in self._inside:
            files: dict[str, list[Path]] = {}
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                    files.setdefault(path.stem, []).append(path)
            self._inside[folder] = files
        found = self._inside[folder].get(name, [])
        if len(found) > 1:
            raise DatasetError(
                f"{found[1]}: same name as {found[0].name}; remove or rename one of "
                "the two"
            )
        return tuple(found) or tuple(_images(folder / name, ())[0])


def _images(folder: Path, others: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Return the images in a folder and below it, by name, and what is wrong with it.

    :param others: folders that are left out where they are below it.
    """
    images: list[Path] = []
    problems: list[Problem] = []
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in entries:
        if is_system_file(path, folder) or path in others:
            continue
        if not path.exists():
            reason = "link to a file that is not there; restore it or remove the link"
            problems.append(Problem(path, reason))
        elif path.is_symlink() and folder.resolve().is_relative_to(path.resolve()):
            reason = "ignored: a link to a folder that it is in"
            problems.append(Problem(path, reason, "note"))
        elif path.is_dir():
            deeper, more = _images(path, others)
            images += deeper
            problems += more
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(path)
        else:
            problems.append(ignored(path, "not an image"))
    return images, problems


def _unread(folder: Path, named: Sequence[Path]) -> Scan:
    """Yield notes of images in a category that no option names."""
    if folder in named:
        return
    yield from stray_images(folder)
    for one in find_folders(folder):
        if any(one in (name, *name.parents) for name in named):
            yield from _unread(one, named)
        elif count_images(one):
            yield ignored(one, "no option of the data set names it")
