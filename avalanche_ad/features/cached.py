"""The file that holds the features of one cache entry, row by row."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avalanche_ad.features.layout import FeatureLayout

__all__ = ["CachedFeatures", "checksum"]

_BLOCK = 1 << 20
_BLOCKS = 1024


class CachedFeatures:
    """Features of a list of samples, memory-mapped.

    Reading touches only the rows asked for. A copy or a pickle holds the path and
    opens the map again, so copying a data set copies no features.

    :param path: the ``.npy`` file.
    :param layout: levels of a row.
    :param hit: whether the features were there already.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "features.npy")
    ...     np.save(path, np.zeros((5, 8), np.float16))
    ...     features = CachedFeatures(path, FeatureLayout(((2, 2, 2),)), hit=True)
    ...     len(features), features[0].dtype
    (5, torch.float32)
    """

    def __init__(self, path: Path, layout: FeatureLayout, hit: bool) -> None:
        self.path = path
        self.layout = layout
        self.hit = hit
        self.array: npt.NDArray[np.floating[Any]] = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: int) -> Tensor:
        """Return the features of one sample, shape (layout.size,), float32."""
        return torch.from_numpy(self.array[index].astype(np.float32))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.layout, self.hit)

    def __repr__(self) -> str:
        return f"CachedFeatures({str(self.path)!r}, {self.layout!r}, hit={self.hit})"


def checksum(path: Path) -> str:
    """Return a digest of a file's size and content.

    Up to 1 GiB every byte counts, beyond that 1024 blocks spread evenly over the file,
    so that opening stays a matter of a second.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    blocks = -(-size // _BLOCK)
    step = max(1, blocks // _BLOCKS)
    with path.open("rb") as file:
        for block in sorted({*range(0, blocks, step), max(0, blocks - 1)}):
            file.seek(block * _BLOCK)
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()
