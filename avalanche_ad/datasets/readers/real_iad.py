"""Real-IAD: 30 categories seen from five sides, split by tables in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.sample import GOOD, Sample, Split
from avalanche_ad.datasets.scanning import (
    Scan,
    choose_categories,
    find_folders,
    missing_root,
)
from avalanche_ad.errors import counted

__all__ = ["REAL_IAD_CATEGORIES", "RealIADReader"]

REAL_IAD_CATEGORIES = (
    "audiojack",
    "bottle_cap",
    "button_battery",
    "end_cap",
    "eraser",
    "fire_hood",
    "mint",
    "mounts",
    "pcb",
    "phone_battery",
    "plastic_nut",
    "plastic_plug",
    "porcelain_doll",
    "regulator",
    "rolled_strip_base",
    "sim_card_set",
    "switch",
    "tape",
    "terminalblock",
    "toothbrush",
    "toy",
    "toy_brick",
    "transistor1",
    "u_block",
    "usb",
    "usb_adaptor",
    "vcpill",
    "wooden_beads",
    "woodstick",
    "zipper",
)

_TABLES = "realiad_jsons"
_NOISY = "fuiad"
_SPLITS: tuple[Split, ...] = ("train", "test")
_ENTRY = ("anomaly_class", "image_path")


class RealIADReader(DiskReader):
    """Read Real-IAD: ``realiad_jsons/<tables>/<category>.json`` and the images.

    A table has ``meta`` with the image folder's ``prefix`` and the ``normal_class``
    (``"OK"``), and lists ``train`` and ``test`` of entries with ``image_path``,
    ``mask_path`` (null without one) and ``anomaly_class``, the defect type, such as
    ``"AK"``. The images are at ``<images>/<prefix>/<image_path>``; those that no table
    names are not used.

    Tables named ``realiad_jsons_fuiad_…`` mix anomalous images into training, where
    nobody is told of them. With these tables they are training images like the others,
    and a note counts them; with other tables they are an error.

    Reference: Wang et al., Real-IAD: A Real-World Multi-View Dataset for Benchmarking
    Versatile Industrial Anomaly Detection, CVPR 2024. Licence: CC BY-NC-SA 4.0.

    :param root: the folder that holds ``realiad_jsons`` and the folder of the images.
    :param categories: a selection; all 30 otherwise. The order stays alphabetical.
    :param images: folder of the images, which says their size: ``"realiad_256"``,
        ``"realiad_512"`` or ``"realiad_1024"``, as they are published.
    :param tables: folder of the tables: ``"realiad_jsons"`` for all five sides,
        ``"realiad_jsons_sv"`` for one, ``"realiad_jsons_fuiad_0.0"`` and the like for
        training with that share of anomalous images.

    >>> print(next(RealIADReader("Real-IAD").scan()))
    Real-IAD: folder not found; expected the folders realiad_jsons and realiad_256
    """

    name = "real_iad"

    def __init__(
        self,
        root: Path | str | None = None,
        categories: Sequence[str] | None = None,
        *,
        images: str = "realiad_256",
        tables: str = "realiad_jsons",
    ) -> None:
        super().__init__(root, categories)
        self.images = images
        self.tables = tables

    def scan(self) -> Scan:
        """Yield samples and problems."""
        content = f"the folders {_TABLES} and {self.images}"
        if problem := missing_root(self.root, content):
            yield problem
            return
        images = self.root / self.images
        tables = self._tables()
        if not images.is_dir():
            yield self._missing(images, "images")
        if tables is None:
            yield self._missing(self.root / _TABLES / self.tables, "tables")
        if tables is None or not images.is_dir():
            return
        known = REAL_IAD_CATEGORIES
        for category in choose_categories(self.root, known, self.categories):
            if isinstance(category, Problem):
                yield category
            else:
                noisy = _NOISY in self.tables
                path = tables / f"{category}.json"
                yield from _scan_table(path, images, category, noisy)

    def _tables(self) -> Path | None:
        """Return the folder of the tables, in the one they are unpacked to or not."""
        places = (self.root / _TABLES / self.tables, self.root / self.tables)
        return next((path for path in places if any(path.glob("*.json"))), None)

    def _missing(self, folder: Path, option: str) -> Problem:
        inside = [*find_folders(self.root), *find_folders(self.root / _TABLES)]
        names = ", ".join(sorted({path.name for path in inside})) or "no folder"
        return Problem(
            folder,
            f"folder of the {option} not found; unpack it there, or name another by "
            f"the option {option!r} ([dataset_options] of a recipe); there are {names}",
        )


def _scan_table(path: Path, images: Path, category: str, noisy: bool) -> Scan:
    """Yield the samples of one category, and what is wrong with its table."""
    table = _read_table(path)
    if isinstance(table, Problem):
        yield table
        return
    meta = table["meta"]
    folder = images / str(meta.get("prefix") or category)
    if not folder.is_dir():
        yield Problem(
            folder,
            f"folder of category {category!r} not found; unpack it there, or name the "
            "categories to use",
        )
        return
    seen: set[Path] = set()
    mixed_in = 0
    for split in _SPLITS:
        if not table[split]:
            yield Problem(path, f"names no {split} image")
        for number, entry in enumerate(table[split]):
            where = f"{split}[{number}]"
            sample = _read_entry(path, where, folder, category, split, entry, meta)
            if isinstance(sample, Sample) and sample.path in seen:
                yield Problem(path, f"{where}: {entry['image_path']} is named twice")
                continue
            if isinstance(sample, Sample):
                seen.add(sample.path)
                if sample.is_anomaly and split == "train":
                    if not noisy:
                        yield Problem(
                            path,
                            f"{where}: anomalous image {entry['image_path']} in the "
                            "train split",
                        )
                        continue
                    mixed_in += 1
                    sample = Sample(sample.path, category, split)
            yield from _check_files(path, sample)
    if mixed_in:
        count = counted(mixed_in, "anomalous image")
        yield Problem(
            path, f"{count} among the {len(table['train'])} for training", "note"
        )


def _check_files(path: Path, sample: Sample | Problem) -> Iterator[Sample | Problem]:
    """Yield a sample and what of it is not on disk."""
    if isinstance(sample, Problem):
        yield sample
    elif not sample.path.is_file():
        yield Problem(sample.path, f"image named in {path.name} not found")
    else:
        yield sample


def _read_table(path: Path) -> dict[str, Any] | Problem:
    """Return a category's table, its parts of the right types, or what is wrong."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return Problem(path, f"the official split cannot be read: {error.strerror}")
    except ValueError as error:
        return Problem(path, f"the official split is not JSON: {error}")
    found: dict[str, Any] = table if isinstance(table, dict) else {}
    for key, kind in {"meta": dict, "train": list, "test": list}.items():
        if not isinstance(found.get(key), kind):
            what = "an object" if kind is dict else "a list"
            return Problem(path, f"expected {what} at the key {key!r}, as published")
    return found


def _read_entry(
    path: Path,
    where: str,
    folder: Path,
    category: str,
    split: Split,
    entry: Any,
    meta: dict[str, Any],
) -> Sample | Problem:
    """Turn one entry into a sample, or say what is wrong with it."""
    if not isinstance(entry, dict):
        return Problem(path, f"{where}: expected an object, found {entry!r}")
    for key in _ENTRY:
        if not isinstance(entry.get(key), str) or not entry[key]:
            return Problem(path, f"{where}: expected a text at the key {key!r}")
    image = folder / entry["image_path"]
    if entry["anomaly_class"] == meta.get("normal_class", "OK"):
        return Sample(image, category, split, GOOD)
    mask = entry.get("mask_path")
    masks = (folder / mask,) if isinstance(mask, str) and mask else ()
    return Sample(image, category, split, entry["anomaly_class"], masks)
