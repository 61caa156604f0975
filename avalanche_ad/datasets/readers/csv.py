"""A table of images: one row says category, split, label, image and masks."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.reader import DiskReader
from avalanche_ad.datasets.sample import Sample, Split
from avalanche_ad.datasets.scanning import Scan, choose_categories, missing_root

__all__ = ["CSVReader"]

_COLUMNS = ("category", "split", "label", "image")
_MASK = "mask"
_EXPECTED = f"{','.join(_COLUMNS)} and, where there are masks, {_MASK}"
_SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
_NORMAL = frozenset({"0", "good", "normal", "ok"})


class CSVReader(DiskReader):
    r"""Read a table with the columns ``category,split,label,image`` and ``mask``.

    ``split`` is ``train`` or ``test``. ``label`` is ``good``, ``normal``, ``ok`` or
    ``0``, in either case, for a normal image; any other text names the defect. Paths,
    of ``image`` and ``mask``, are as seen from the table's folder. Several masks of an
    image are separated by ``;``, and their union is its mask; without one it is not
    known. Other columns are not read.

    :param root: the folder with the table.
    :param categories: a selection; all otherwise. The order is that of the table.
    :param table: the table's name.

    >>> rows = "category,split,label,image", "gear,dev,ok,0.png"
    >>> _ = Path("images.csv").write_text("\n".join(rows))
    >>> print(CSVReader(".").check()[0])
    images.csv: line 2, column split: expected train or test, found 'dev'
    """

    name = "csv"

    def __init__(
        self,
        root: Path | str | None = None,
        categories: Sequence[str] | None = None,
        *,
        table: str = "images.csv",
    ) -> None:
        super().__init__(root, categories)
        self.table = table

    def scan(self) -> Scan:
        """Yield samples and problems."""
        if self.root.is_file():
            yield Problem(
                self.root,
                "expected the folder it is in, and the table's name as the option "
                f"'table' if it is not {self.table}",
            )
            return
        if problem := missing_root(self.root, f"a table {self.table}"):
            yield problem
            return
        path = self.root / self.table
        rows: dict[str, list[Sample]] = {}
        for item in _read(path):
            if isinstance(item, Problem):
                yield item
            else:
                rows.setdefault(item.category, []).append(item)
        for category in choose_categories(self.root, [*rows], self.categories):
            if isinstance(category, Problem):
                yield category
                continue
            if not any(sample.split == "train" for sample in rows[category]):
                yield Problem(path, f"names no train image of {category!r}")
            yield from rows[category]


def _read(path: Path) -> Iterator[Sample | Problem]:
    """Yield one sample per row of the table, and its malformed rows."""
    try:
        # "utf-8-sig": spreadsheets put a byte-order mark before the first column
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        table = csv.reader(lines, strict=True)
        names = [name.strip().lower() for name in next(table, [])]
        rows = [(table.line_num, row) for row in table if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "no table in UTF-8"
        yield Problem(path, f"cannot be read: {reason}; expected {_EXPECTED}")
        return
    if missing := [name for name in _COLUMNS if name not in names]:
        close = get_close_matches(missing[0], names, n=1)
        hint = f" (is it {close[0]!r}?)" if close else ""
        found = ",".join(names) or "no column"
        yield Problem(
            path,
            f"line 1: no column {missing[0]!r}{hint}; expected {_EXPECTED}; found "
            f"{found}",
        )
        return
    if not rows:
        yield Problem(path, "names no image")
    seen: dict[Path, int] = {}
    for line, cells in rows:
        if len(cells) != len(names):
            text = (
                f"line {line}: {len(cells)} cells; expected {len(names)}, one a column"
            )
            yield Problem(path, text)
            continue
        row = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
        item = _sample(path, line, row)
        if isinstance(item, Sample):
            real = item.path.resolve()
            if real in seen:
                text = f"{row['image']} is in line {seen[real]} too"
                item = _wrong(path, line, "image", text)
            else:
                seen[real] = line
        yield item


def _sample(table: Path, line: int, row: Mapping[str, str]) -> Sample | Problem:
    """Turn a row into a sample, or say what is wrong with it."""
    for name in _COLUMNS:
        if not row[name]:
            return _wrong(table, line, name, "is empty")
    split = _SPLITS.get(row["split"].lower())
    if split is None:
        text = f"expected train or test, found {row['split']!r}"
        return _wrong(table, line, "split", text)
    image = table.parent / row["image"]
    if not image.is_file():
        return _wrong(table, line, "image", f"no file {image}")
    if row["label"].lower() in _NORMAL:
        return Sample(image, row["category"], split)
    if split == "train":
        text = f"{row['label']!r} in the train split, where all images are normal"
        return _wrong(table, line, "label", text)
    named = (name.strip() for name in row.get(_MASK, "").split(";"))
    masks = tuple(table.parent / name for name in named if name)
    for mask in masks:
        if not mask.is_file():
            return _wrong(table, line, _MASK, f"no file {mask}")
    return Sample(image, row["category"], split, row["label"], masks)


def _wrong(table: Path, line: int, column: str, reason: str) -> Problem:
    return Problem(table, f"line {line}, column {column}: {reason}")
