"""Folders where every image lies beside its label, which is black if it is normal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.loading import opened
from avalanche_ad.datasets.scanning import list_images
from avalanche_ad.errors import DatasetError

__all__ = ["Labelled", "pair_labels"]


class Labelled(NamedTuple):
    """An image and its label.

    >>> Labelled(Path("Part0.jpg"), Path("Part0_label.bmp"), True).is_anomaly
    True
    """

    image: Path
    label: Path
    is_anomaly: bool


def pair_labels(
    folder: Path, suffix: str, extension: str
) -> Iterator[Labelled | Problem]:
    """Yield a folder's images with their labels, each label decoded, and problems.

    :param folder: the folder.
    :param suffix: what a label's name has after its image's, such as ``"_label"``.
    :param extension: of the labels, for messages, such as ``".bmp"``.
    """
    files, problems = list_images(folder)
    yield from problems
    for stem, image in files.items():
        if stem.endswith(suffix):
            if stem.removesuffix(suffix) not in files:
                yield Problem(image, "ignored: label without an image", "note", files=1)
            continue
        label = files.get(stem + suffix)
        if label is None:
            where = image.with_name(f"{stem}{suffix}{extension}")
            yield Problem(image, f"image without label; expected {where}")
            continue
        try:
            yield Labelled(image, label, _shows_something(label))
        except DatasetError as error:
            yield Problem(label, str(error).removeprefix(f"{label}: "))


def _shows_something(label: Path) -> bool:
    with opened(label) as image:
        brightest = image.convert("L").getextrema()[1]
    return bool(brightest)
