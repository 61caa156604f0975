"""Colour of 16 bits a channel, in full depth: Pillow keeps the high bytes alone.

Pillow decodes such files with one of two unpackers, one for each order of the bytes,
and either takes the byte that is the high one in its order. Given the order that the
file is *not* in, it takes the low bytes. So two decodings give all 16 bits, whatever
the compression, without another decoder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["is_deep_colour", "load_deep_colour", "raw_mode"]

_OPPOSITE = {"L": "B", "B": "L"}
_NATIVE = "L" if sys.byteorder == "little" else "B"
_TRANSPARENT_GREY = "LA;16B"
# tags of TIFF
_BITS_PER_SAMPLE = 258
_SAMPLES_PER_PIXEL = 277
_PLANAR_CONFIGURATION = 284
_EXTRA_SAMPLES = 338
_ASSOCIATED_ALPHA = 1


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a file opened but not yet decoded has several channels of 16 bits."""
    if image.format not in {"PNG", "TIFF"}:
        return False
    return image.mode in {"RGB", "RGBA", "CMYK"} and (
        ";16" in raw_mode(image)
        or (_is_planar(image) and max(_tag(image, _BITS_PER_SAMPLE, (1,))) == 16)
    )


def load_deep_colour(path: Path) -> npt.NDArray[np.uint16]:
    """Decode a file of which ``is_deep_colour`` is true.

    Colour that was multiplied with its alpha (a TIFF's associated alpha) is divided
    by it again, as Pillow does with 8 bits. Of a compressed TIFF that keeps its
    channels apart only the high bytes can be had; they are repeated as the low ones.

    :param path: a PNG or TIFF file.
    :return: (H, W, 3), for CMYK (H, W, 4), values 0-65535; alpha is dropped.
    """
    with Image.open(path) as image:
        mode, unpacker, planar = image.mode, raw_mode(image), _is_planar(image)
        associated = _ASSOCIATED_ALPHA in _tag(image, _EXTRA_SAMPLES, ())
        if unpacker == _TRANSPARENT_GREY:
            # four plain bytes a pixel: grey and alpha, high byte and low byte
            _use(image, "RGBA")
            plain = np.asarray(image).astype(np.uint16)
            return np.repeat(_joined(plain[:, :, :1], plain[:, :, 1:2]), 3, axis=2)
        if planar:
            order = "L" if image.tag_v2.prefix == b"II" else "B"  # type: ignore[attr-defined]
        else:
            order = _NATIVE if unpacker[-1] == "N" else unpacker[-1]
            unpacker = unpacker.replace("RGBa", "RGBA")[:-1]
        both_bytes = not planar or _use_planes(image, order)
        if not planar:
            _use(image, unpacker + order)
        high = np.asarray(image).astype(np.uint16)
    low = high
    if both_bytes:
        with Image.open(path) as image:
            if planar:
                _use_planes(image, _OPPOSITE[order])
            else:
                _use(image, unpacker + _OPPOSITE[order])
            low = np.asarray(image).astype(np.uint16)
    pixels = _joined(high, low)
    if mode == "CMYK":
        return pixels
    if associated and mode == "RGBA":
        alpha = np.maximum(pixels[:, :, 3:].astype(np.int64), 1)
        divided = pixels.astype(np.int64) * 65535 // alpha
        pixels = np.minimum(divided, 65535).astype(np.uint16)
    return pixels[:, :, :3]


def _joined(
    high: npt.NDArray[np.uint16], low: npt.NDArray[np.uint16]
) -> npt.NDArray[np.uint16]:
    return np.bitwise_or(np.left_shift(high, np.uint16(8)), low)


def _use(image: Image.Image, unpacker: str) -> None:
    """Make a file's pixels be unpacked in another way than Pillow chose."""
    opened: Any = image  # only images of files have tiles
    tiles = []
    for tile in opened.tile:
        given = tile[3]
        changed = unpacker if isinstance(given, str) else (unpacker, *given[1:])
        tiles.append(_tile(tile, *tile[:3], changed))
    opened.tile = tiles


def _use_planes(image: Image.Image, order: str) -> bool:
    """Make the channels of a TIFF be read one after the other, 16 bits each.

    Pillow takes those of an uncompressed file for channels of 8 bits.

    :return: whether the order of the bytes can be chosen.
    """
    opened: Any = image
    if opened.tile[0][0] == "raw" and image.mode != "CMYK":
        planes = len(opened.tile) // _tag(image, _SAMPLES_PER_PIXEL, 1)
        opened.tile = [
            _tile(
                tile, *tile[:3], (f"{image.mode[i // planes]};16{order}", *tile[3][1:])
            )
            for i, tile in enumerate(opened.tile[: planes * len(image.mode)])
        ]
        return True
    opened.use_load_libtiff = True
    box, arguments = (0, 0, *opened._tile_size), (f"{image.mode};16N", False)
    opened.tile = [
        _tile(opened.tile[0], "libtiff", box, 0, (*arguments, opened.tag_v2.offset))
    ]
    return False


def _tile(like: tuple[Any, ...], *values: object) -> tuple[Any, ...]:
    """Return a tile of the kind that this version of Pillow uses."""
    make = getattr(like, "_make", tuple)
    tile: tuple[Any, ...] = make(values)
    return tile


def raw_mode(image: Image.Image) -> str:
    """Return the name of the unpacker that Pillow chose, empty where there is none."""
    tiles = getattr(image, "tile", None) or [("", (), 0, "")]
    arguments = tiles[0][3]
    if isinstance(arguments, tuple) and arguments:
        arguments = arguments[0]
    return arguments if isinstance(arguments, str) else ""


def _is_planar(image: Image.Image) -> bool:
    """Whether the file is a TIFF that keeps its channels apart."""
    return bool(_tag(image, _PLANAR_CONFIGURATION, 1) == 2)


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    return getattr(image, "tag_v2", {}).get(number, default)
