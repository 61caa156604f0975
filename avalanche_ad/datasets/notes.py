"""What is odd about a data set's files, counted, so that a line can tell it.

``check`` tells all of it, a run what can change its numbers: as it decodes no image
whose features it has, it goes by headers, and by a few images of more than 8 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from os.path import commonpath
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets.disk import DiskData, Problem
from avalanche_ad.datasets.lacking import TestCounts, lacking
from avalanche_ad.datasets.loading import Remark, image_remarks, read_header
from avalanche_ad.datasets.sample import AnomalyData, Sample
from avalanche_ad.errors import DatasetError, counted

__all__ = ["NOTE", "mask_and_remarks", "tell"]

Kind = Literal["image", "mask"]

NOTE = {"note": True}
"""Marks a record that is on the data, so the same in every run on it."""

_log = logging.getLogger(__name__)

_INVERTED = 0.9
"""A mask with this share of its border true, and half of it all, looks inverted."""
_SHOWN = 8
_EXAMPLES = 2
_DECODED = 3


@dataclass
class _Group:
    level: int
    telling: bool
    paths: list[Path] = field(default_factory=list)


class Remarks:
    """Remarks on images and masks, counted by category."""

    unmasked: set[Sample]
    """The anomalous images whose masks are not known."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Kind, str, str], _Group] = {}
        self.unmasked = set()

    def add(
        self, kind: Kind, category: str, paths: Sequence[Path], remark: Remark
    ) -> None:
        """Count a remark.

        :param kind: whether it is on images or masks.
        :param category: of what category.
        :param paths: the files that it holds for.
        :param remark: what is odd.
        """
        key = (kind, category, remark.text)
        group = self._groups.setdefault(key, _Group(0, remark.telling))
        group.level = max(group.level, remark.level)
        group.paths += paths

    def problems(self) -> Iterator[Problem]:
        """Yield a note for each category and kind of remark."""
        for (kind, _, text), group in self._groups.items():
            where = Path(commonpath(group.paths))
            what = text.format(level=group.level)
            count = counted(len(group.paths), kind)
            yield Problem(where, f"{count} {what}", "note")

    def lines(self) -> Iterator[str]:
        """Yield what can change numbers, a line for each kind of remark."""
        merged: dict[tuple[Kind, str], list[tuple[str, _Group]]] = {}
        for (kind, category, text), group in self._groups.items():
            if group.telling:
                merged.setdefault((kind, text), []).append((category, group))
        for (kind, text), groups in merged.items():
            count = sum(len(group.paths) for _, group in groups)
            what = text.format(level=max(group.level for _, group in groups))
            names = [category for category, _ in groups]
            shown = ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)
            example = groups[0][1].paths[0]
            yield f"{counted(count, kind)} of {shown} {what} (such as {example})"


def mask_and_remarks(
    data: AnomalyData, sample: Sample
) -> tuple[npt.NDArray[np.bool_] | None, list[Remark]]:
    """Return an anomalous image's mask and what is odd about it.

    :return: the mask, (H, W), ``None`` where it is not known, and the remarks: those of
        reading its file, and whether it is empty or looks inverted.
    :raises DatasetError: when it cannot be read.
    """
    remarks: list[Remark] = []
    if isinstance(data, DiskData):
        mask, remarks = data.read_mask(sample)
    else:
        mask = data.mask(sample)
    return mask, [*(() if mask is None else _content(mask)), *remarks]


def tell(data: AnomalyData, samples: Sequence[Sample], remarks: Remarks) -> None:
    """Log what was passed over, what lacks and what can change numbers, a line each.

    :param data: the data set.
    :param samples: those in use.
    :param remarks: on their masks; those on their images are added.
    """
    if isinstance(data, DiskData):
        if line := _passed_over(data):
            _log.warning("%s", line, extra=NOTE)
        _add_images(samples, remarks)
    counts = TestCounts.count(samples, remarks.unmasked)
    for line in (*lacking(counts), *remarks.lines()):
        _log.warning("%s", line, extra=NOTE)


def _add_images(samples: Sequence[Sample], remarks: Remarks) -> None:
    """Add what headers tell of images, and whether a few deep ones are dark.

    Files that cannot be read are left to those who need their pixels.
    """
    deep: dict[str, list[Path]] = {}
    for sample in samples:
        try:
            is_deep, found = read_header(sample.path)
        except DatasetError:
            continue
        for remark in found:
            remarks.add("image", sample.category, [sample.path], remark)
        if is_deep:
            deep.setdefault(sample.category, []).append(sample.path)
    for category, paths in deep.items():
        chosen = {
            paths[i * (len(paths) - 1) // (_DECODED - 1)] for i in range(_DECODED)
        }
        for path in sorted(chosen):
            try:
                first = image_remarks(path)[0]
            except DatasetError:
                continue
            if first.telling:
                text = f"{first.text} ({_DECODED} of a category are looked at)"
                remarks.add("image", category, [path], replace(first, text=text))


def _content(mask: npt.NDArray[np.bool_]) -> Iterator[Remark]:
    """Say whether the mask of an anomalous image is empty or looks inverted."""
    if not mask.any():
        text = "all zero, but of an anomalous image, whose pixels count as normal"
        yield Remark(text, telling=True)
        return
    if mask.all():
        text = "covering the whole image: inverted? White must be the defect"
        yield Remark(text, telling=True)
        return
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if mask.mean() > 0.5 and border.mean() >= _INVERTED:
        text = (
            "covering up to {level} % of the image and nearly all of its border: "
            "inverted? White must be the defect"
        )
        yield Remark(text, round(100 * float(mask.mean())), telling=True)


def _passed_over(data: DiskData) -> str:
    """Return one line on what the reader passed over, empty where there is nothing."""
    notes = sorted(data.notes, key=lambda note: -note.files)
    count = sum(note.files for note in notes)
    if not count:
        return ""
    folders = [n.path if n.path.is_dir() else n.path.parent for n in notes]
    root = Path(commonpath([*folders, *(s.path.parent for s in data.samples)]))
    shown = ", ".join(_shown(note, root) for note in notes[:_EXAMPLES])
    more = ", …" if len(notes) > _EXAMPLES else ""
    return (
        f"{counted(count, 'file')} below {root} "
        f"{'is' if count == 1 else 'are'} ignored: {shown}{more}; "
        "avalanche-ad check with the same -b and --data lists them"
    )


def _shown(note: Problem, root: Path) -> str:
    if not note.path.is_dir():
        return str(note.path.relative_to(root))
    where = "it" if note.path == root else note.path.relative_to(root)
    return f"{counted(note.files, 'image')} in {where}"
