"""Everything that is wrong with a data set, every image and mask decoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from avalanche_ad.datasets.disk import Problem, Severity
from avalanche_ad.datasets.lacking import TestCounts, lacking_problems
from avalanche_ad.datasets.loading import image_remarks
from avalanche_ad.datasets.notes import Remarks, mask_and_remarks
from avalanche_ad.datasets.sample import AnomalyData, Sample, Split
from avalanche_ad.errors import DatasetError

__all__ = ["MINIMUM_SIDE", "Problem", "Progress", "Severity", "find_problems", "verify"]

MINIMUM_SIDE = 16
"""Shortest side of an image in pixels; below it feature levels vanish."""

Progress = Callable[[int, int], None]
"""Called after every image with the number done and the number in all."""


def find_problems(data: AnomalyData, progress: Progress | None = None) -> list[Problem]:
    """Decode every image and mask, and list every problem of a data set.

    Errors, which would break a run: a file that is missing, empty, truncated or no
    image; an image smaller than ``MINIMUM_SIDE``; an anomalous image in the train
    split or with a mask of another size. Notes, which would not: images that loading
    converts; masks that are all zero, noisy, drawn on the turned image or look
    inverted; anomalous images without mask; a test split of one class or empty; a test
    image that is also a training image.

    :param data: a data set on disk or in memory.
    :param progress: called after every image with (done, total).
    :return: errors and notes, in the order of the samples.
    """
    return list(_iterate(data, progress))


def verify(data: AnomalyData, progress: Progress | None = None) -> None:
    """Decode every image and mask, and stop at the first error.

    :param data: a data set on disk or in memory.
    :param progress: called after every image with (done, total).
    :raises DatasetError: at the first problem that is not a note.
    """
    for problem in _iterate(data, progress):
        if problem.severity == "error":
            raise DatasetError(str(problem))


def _iterate(data: AnomalyData, progress: Progress | None) -> Iterator[Problem]:
    yield from _check_splits(data)
    remarks = Remarks()
    digests: dict[Split, dict[str, list[Path]]] = {
        "train": defaultdict(list),
        "test": defaultdict(list),
    }
    for done, sample in enumerate(data.samples, start=1):
        size: Sequence[int] | None = None
        try:
            size = data.image(sample).shape[:2]
            yield from _check_size(sample, size)
            digests[sample.split][data.fingerprint(sample)].append(sample.path)
            if sample.path.is_file():
                for remark in image_remarks(sample.path):
                    remarks.add("image", sample.category, [sample.path], remark)
        except DatasetError as error:
            yield _from_error(error, sample.path)
        if sample.is_anomaly:
            yield from _check_mask(data, sample, size, remarks)
        if progress:
            progress(done, len(data.samples))
    yield from _check_leaks(digests)
    yield from lacking_problems(TestCounts.count(data.samples, remarks.unmasked))
    # One line for each category: whole categories are grey in the usual data sets.
    yield from remarks.problems()


def _check_size(sample: Sample, size: Sequence[int]) -> Iterator[Problem]:
    if min(size) < MINIMUM_SIDE:
        yield Problem(
            sample.path,
            f"image of {_show(size)} pixels; expected at least {MINIMUM_SIDE} a side",
        )


def _check_mask(
    data: AnomalyData, sample: Sample, size: Sequence[int] | None, remarks: Remarks
) -> Iterator[Problem]:
    """Check the mask of an anomalous image; ``size`` is the image's, if it is known."""
    where = next(iter(sample.mask_paths), sample.path)
    try:
        mask, found = mask_and_remarks(data, sample)
    except DatasetError as error:
        yield _from_error(error, where)
        return
    if mask is None:
        remarks.unmasked.add(sample)
        return
    if size is not None and mask.shape != tuple(size):
        yield mask_of_another_size(sample, mask.shape, size)
    for remark in found:
        remarks.add("mask", sample.category, [where], remark)


def mask_of_another_size(
    sample: Sample, found: Sequence[int], expected: Sequence[int]
) -> Problem:
    """Return the problem of a mask whose size is not its image's, (height, width)."""
    return Problem(
        next(iter(sample.mask_paths), sample.path),
        f"mask of {_show(found)} pixels; expected {_show(expected)}, the size of "
        f"{sample.path}",
    )


def _check_leaks(
    digests: dict[Split, dict[str, list[Path]]],
) -> Iterator[Problem]:
    """Note test images whose content is that of a training image."""
    for digest, paths in digests["test"].items():
        for twin in digests["train"].get(digest, [])[:1]:
            for path in paths:
                yield Problem(path, f"same content as training image {twin}", "note")


def _check_splits(data: AnomalyData) -> Iterator[Problem]:
    """Check that training images are normal and test images of both classes."""
    folders: dict[str, Path] = {}
    labels: dict[str, set[bool]] = defaultdict(set)
    for sample in data.samples:
        if sample.split == "test":
            folders.setdefault(sample.category, sample.path.parent.parent)
            labels[sample.category].add(sample.is_anomaly)
        elif sample.is_anomaly:
            yield Problem(sample.path, "anomalous image in the train split")
    for category, found in labels.items():
        if len(found) == 1:
            only = "anomalous" if True in found else "normal"
            yield Problem(
                folders[category],
                f"category {category!r} has only {only} test images; its AUROC is "
                "undefined and left out of means",
                "note",
            )


def _from_error(error: DatasetError, path: Path) -> Problem:
    """Turn the line that a loader raised, ``path: message``, back into two parts."""
    return Problem(path, str(error).removeprefix(f"{path}: "))


def _show(size: Sequence[int]) -> str:
    """Return (height, width) as people write it, width first."""
    return f"{size[1]}x{size[0]}"
