"""The images that a command is given, as files and folders."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from avalanche_ad.datasets.loading import IMAGE_SUFFIXES
from avalanche_ad.datasets.scanning import is_system_file
from avalanche_ad.errors import (
    DatasetError,
    counted,
)
from avalanche_ad.reporting.figures import is_heat_map

__all__ = ["find_images"]

_log = logging.getLogger(__name__)
_MASKS = "ground_truth"  # of a data set: masks are no parts


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Return image files: those given, and all images below the folders given.

    Hidden and system files in folders are passed over, and heat maps of
    :func:`predict_images` wherever they are; a line is logged of how many. An image
    given twice is taken once. What has an image's name in a folder and is none, such as
    a link to nothing, is returned as well, for its reader to refuse.

    :raises DatasetError: when a path does not exist or a folder holds no image.
    """
    found: dict[Path, Path] = {}
    maps = 0
    for path in paths:
        inside = [path]
        try:
            kind = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            kind = 0
        except OSError as error:
            reason = error.strerror or error
            raise DatasetError(f"{path}: cannot be read: {reason}") from None
        if stat.S_ISDIR(kind):
            inside = _below(path)
            if not inside:
                raise DatasetError(f"{path}: no image in this folder or below it")
        elif not stat.S_ISREG(kind):
            raise DatasetError(f"{path}: no such image or folder")
        for item in inside:
            if is_heat_map(item):
                maps += 1
            else:
                # one place has many names: a/../a, or a link to a folder
                folder = Path(os.path.realpath(item.parent))
                found.setdefault(folder / item.name, item)
    if maps:
        _log.warning(
            "%d heat map%s that predict wrote %s passed over",
            maps,
            *(("", "is") if maps == 1 else ("s", "are")),
        )
    if not found:
        raise DatasetError(
            f"{paths[0] if paths else 'nothing given'}: no image but heat maps that "
            "predict wrote: give images"
        )
    return list(found.values())


def _below(folder: Path) -> list[Path]:
    """Return what has an image's name below a folder, and folders that do not open."""
    found, masks = [], list[Path]()

    def refused(error: OSError) -> None:
        found.append(Path(error.filename))

    for place, folders, files in os.walk(folder, onerror=refused):
        masks += [Path(place, name) for name in folders if name == _MASKS]
        folders[:] = [
            name
            for name in folders
            if name != _MASKS and not is_system_file(Path(place, name), folder)
        ]
        found += [
            item
            for item in (Path(place, name) for name in files)
            if item.suffix.lower() in IMAGE_SUFFIXES
            and not is_system_file(item, folder)
        ]
        if Path(place).suffix.lower() in IMAGE_SUFFIXES and not (folders or files):
            found.append(Path(place))  # an empty folder of an image's name
    if masks:
        _log.warning(
            "%s of masks passed over (such as %s)",
            counted(len(masks), "folder"),
            masks[0],
        )
    return sorted(found)
