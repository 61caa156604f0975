"""A data set written to disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

import numpy as np
import numpy.typing as npt
from PIL import Image

from avalanche_ad.datasets.sample import AnomalyData
from avalanche_ad.errors import DatasetError

__all__ = ["write_mvtec_layout"]


def write_mvtec_layout(
    data: AnomalyData,
    root: Path | str,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a data set to disk in MVTec AD's layout.

    ``CATEGORY/train/good/000.png``, ``CATEGORY/test/DEFECT/000.png`` and
    ``CATEGORY/ground_truth/DEFECT/000_mask.png``. The folder is complete or absent:
    all is written beside it, then renamed.

    :param data: any data set.
    :param root: the folder to make; it may exist if it is empty.
    :param progress: called with (images written, images in all) after every image.
    :return: the folder.
    :raises DatasetError: when the folder holds something or cannot be written.
    """
    target = Path(root)
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DatasetError(
                f"{target}: expected a new or empty folder, found something there; "
                "remove it or choose another folder"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.parent / f".{target.name}-{token_hex(4)}"
        aside.mkdir()
        try:
            _write_images(data, aside, progress)
            if target.exists():
                target.rmdir()
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise DatasetError(
            f"{target}: cannot write the data set there ({error.strerror or error}); "
            "choose a writable folder with enough space"
        ) from error
    return target


def _write_images(
    data: AnomalyData, root: Path, progress: Callable[[int, int], None] | None
) -> None:
    numbers: dict[Path, int] = {}
    for done, sample in enumerate(data.samples, start=1):
        folder = root / sample.category / sample.split / sample.defect_type
        number = numbers[folder] = numbers.get(folder, -1) + 1
        _save(data.image(sample), folder / f"{number:03d}.png")
        mask = data.mask(sample) if sample.is_anomaly else None
        if mask is not None:
            masks = root / sample.category / "ground_truth" / sample.defect_type
            white = mask.astype(np.uint8) * np.uint8(255)
            _save(white, masks / f"{number:03d}_mask.png")
        if progress is not None:
            progress(done, len(data.samples))


def _save(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
