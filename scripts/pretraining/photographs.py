"""Photographs in classes, from a tar archive or a folder, held in memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from avalanche_ad.datasets.validation import Progress
from avalanche_ad.errors import DatasetError
from avalanche_ad.features.backbone import first_line

__all__ = ["HELD_OUT", "Photographs", "is_held_out", "read_photographs"]

HELD_OUT = 30
"""One photograph of so many is never trained on."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Photographs:
    """Images of one size with their classes.

    :param images: (N, 3, S, S), uint8.
    :param labels: (N,), indices into ``classes``.
    :param classes: names of the classes, sorted.
    :param held_out: (N,), which images are for validation only.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    held_out: Tensor

    def select(self, held_out: bool) -> tuple[Tensor, Tensor]:
        """Return images and labels of the part that is trained on, or of the other."""
        chosen = self.held_out if held_out else ~self.held_out
        return self.images[chosen], self.labels[chosen]


def is_held_out(name: str) -> bool:
    """Whether a photograph is for validation; its path alone decides.

    :param name: ``class/file``, with forward slashes.
    """
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") % HELD_OUT == 0


def read_photographs(
    source: Path, size: int = 64, progress: Progress | None = None
) -> Photographs:
    """Read all photographs below a folder or in a tar archive.

    The class of a photograph is the folder it lies in. Nothing is unpacked to disk.

    :param source: the folder, or the archive, compressed or not.
    :param size: side in pixels that every photograph is cropped and resized to.
    :param progress: called with (photographs read, photographs in all).
    :raises DatasetError: when there is nothing of the kind or a file is damaged.
    """
    entries = dict(_entries(source))
    if not entries:
        raise DatasetError(
            f"{source} has no photographs; expected CLASS/NAME with one of "
            f"{', '.join(_SUFFIXES)}"
        )
    names = sorted(entries)
    folders = [PurePosixPath(name).parent.as_posix() for name in names]
    classes = sorted(set(folders))
    if len(classes) < 2:
        raise DatasetError(
            f"{source} has photographs of one class only ({classes[0]}); expected a "
            "folder per class, two at least"
        )
    images = torch.empty(len(names), 3, size, size, dtype=torch.uint8)
    for number, name in enumerate(names):
        pixels = _decoded(entries[name], size, f"{source}: {name}")
        images[number] = torch.from_numpy(pixels).permute(2, 0, 1)
        entries[name] = b""
        if progress is not None:
            progress(number + 1, len(names))
    index = {name: number for number, name in enumerate(classes)}
    return Photographs(
        images,
        torch.tensor([index[folder] for folder in folders]),
        tuple(classes),
        torch.tensor([is_held_out(name) for name in names]),
    )


def _entries(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``class/file`` and the file's bytes."""
    if source.is_dir():
        for path in source.rglob("*"):
            if path.suffix.lower() in _SUFFIXES and path.parent != source:
                yield path.relative_to(source).as_posix(), path.read_bytes()
        return
    if not source.is_file():
        raise DatasetError(
            f"{source} does not exist; expected a folder or a tar archive with a "
            "folder of photographs per class"
        )
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                wanted = name.suffix.lower() in _SUFFIXES and len(name.parts) > 1
                if member.isfile() and wanted:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield name.as_posix().removeprefix("./"), file.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(
            f"{source} is no whole tar archive ({first_line(error)}); copy it again"
        ) from error


def _decoded(
    content: bytes, size: int, what: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return RGB (size, size, 3) of the middle square of an image."""
    try:
        with Image.open(BytesIO(content)) as opened:
            image = opened.convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            if side != size:
                image = image.resize((size, size), Image.Resampling.BICUBIC)
            return np.array(image)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DatasetError(f"{what} is damaged ({error}); copy it again") from error
