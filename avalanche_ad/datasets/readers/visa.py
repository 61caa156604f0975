"""VisA: 12 categories, split by the official one-class table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from avalanche_ad.datasets.categories import VISA_CATEGORIES
from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.loading import IMAGE_SUFFIXES
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.sample import GOOD, Sample, Split
from avalanche_ad.datasets.scanning import (
    Scan,
    choose_categories,
    is_system_file,
    missing_category,
    missing_root,
    unknown_folders,
)
from avalanche_ad.errors import counted

__all__ = ["VISA_CATEGORIES", "VisAReader"]

_TABLE = Path("split_csv", "1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")
_DEFECT = "anomaly"
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
_DEFECT_TYPES = {"normal": GOOD, _DEFECT: _DEFECT}


class VisAReader(DiskReader):
    """Read VisA as published: category folders and ``split_csv/1cls.csv``.

    The table names every image, its split, label and mask, relative to the root; images
    it does not name are not used. Masks number their defects 1, 2, …; all count. The
    only defect type is ``"anomaly"``.

    Reference: Zou et al., SPot-the-Difference Self-Supervised Pre-training for Anomaly
    Detection and Segmentation, ECCV 2022. Licence: CC BY 4.0.

    :param root: the folder that holds the category folders and ``split_csv``.
    :param categories: a selection; all 12 otherwise. The order stays alphabetical.

    >>> print(next(VisAReader("VisA").scan()))
    VisA: folder not found; expected VisA's category folders and split_csv/1cls.csv
    """

    name = "visa"

    def scan(self) -> Scan:
        """Yield samples and problems."""
        if problem := missing_root(self.root, f"VisA's category folders and {_TABLE}"):
            yield problem
            return
        samples: list[Sample] = []
        for item in _read_table(self.root):
            if isinstance(item, Problem):
                yield item
            else:
                samples.append(item)
        if not samples:
            return
        yield from unknown_folders(
            self.root, VISA_CATEGORIES, "no category of this data set"
        )
        for category in choose_categories(self.root, VISA_CATEGORIES, self.categories):
            if isinstance(category, Problem):
                yield category
            else:
                own = [sample for sample in samples if sample.category == category]
                yield from _check_category(self.root, category, own)


def _check_category(root: Path, category: str, samples: list[Sample]) -> Scan:
    """Yield a category's samples, and what is missing on disk."""
    if not (root / category).is_dir():
        yield missing_category(root / category)
        return
    if not any(sample.split == "train" for sample in samples):
        yield Problem(root / _TABLE, f"names no train image of {category!r}")
    for split in _SPLITS.values():
        for sample in samples:
            if sample.split != split:
                continue
            if sample.path.is_file():
                yield sample
            else:
                yield Problem(sample.path, f"image named in {_TABLE} not found")
    named = {sample.path for sample in samples}
    folders = sorted({path.parent for path in named})
    for folder in folders:
        images = [path for path in _images_in(folder) if path not in named]
        if images:
            reason = f"ignored: {counted(len(images), 'image')} in it not in {_TABLE}"
            yield Problem(folder, reason, "note", files=len(images))


def _images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_system_file(path, folder)
    ]


def _read_table(root: Path) -> Iterator[Sample | Problem]:
    """Yield one sample per row of the table, and its malformed rows."""
    table = root / _TABLE
    try:
        # "utf-8-sig": spreadsheets put a byte-order mark before the first column.
        lines = table.read_text(encoding="utf-8-sig").splitlines()
        reader = csv.DictReader(lines)
        columns = reader.fieldnames or ()
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "not a CSV table"
        yield Problem(table, f"the official split cannot be read: {reason}")
        return
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        expected = ",".join(_COLUMNS)
        yield Problem(table, f"no column {', '.join(missing)}; expected {expected}")
        return
    seen: set[Path] = set()
    for line, row in rows:
        item = _read_row(root, table, line, row)
        if isinstance(item, Sample) and item.path in seen:
            yield Problem(table, f"line {line}: {row['image']} is named twice")
            continue
        if isinstance(item, Sample):
            seen.add(item.path)
        yield item


def _read_row(
    root: Path, table: Path, line: int, row: dict[str, str | None]
) -> Sample | Problem:
    """Turn one row into a sample, or say what is wrong with it."""
    category, split_name, label, image, mask = (
        (row[name] or "").strip() for name in _COLUMNS
    )
    split = _SPLITS.get(split_name)
    defect_type = _DEFECT_TYPES.get(label)
    if category not in VISA_CATEGORIES:
        return Problem(table, f"line {line}: unknown object {category!r}")
    if split is None:
        return Problem(
            table, f"line {line}: expected split train or test, found {split_name!r}"
        )
    if defect_type is None:
        return Problem(
            table, f"line {line}: expected label normal or anomaly, found {label!r}"
        )
    if not image:
        return Problem(table, f"line {line}: names no image")
    if defect_type == GOOD:
        return Sample(root / image, category, split)
    if split == "train":
        return Problem(
            table, f"line {line}: anomalous image {image} in the train split"
        )
    standard = Path(category, "Data", "Masks", "Anomaly", f"{Path(image).stem}.png")
    masks = (root / (mask or standard),)
    return Sample(root / image, category, split, defect_type, masks)
