"""Image files decoded into arrays, always in the same form.

Whatever a file holds, an image becomes 8-bit RGB. The rules, which ``LOADING_RULES``
numbers so that cached features notice a change:

* grey, palette, black-and-white and CMYK images are converted to RGB;
* an alpha channel is dropped, never blended: published results on the usual data sets
  are made that way, and there is no background to blend with;
* grey and colour of 16 bits are scaled by their full range, 65535 -> 255, never by the
  brightest pixel found, which would make brightness differ from image to image;
  a TIFF that says its grey has 12 bits is scaled by 4095;
* the EXIF orientation is ignored: pixels stay as stored, since masks are drawn on them;
  only a TIFF's own orientation is applied, as every reader of TIFF does;
* of a file with several frames the first is read.

What is odd about a file, :func:`image_remarks` says in phrases; of masks, see
:mod:`avalanche_ad.datasets.masks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from avalanche_ad.datasets.deep_colour import (
    is_deep_colour,
    load_deep_colour,
    raw_mode,
)
from avalanche_ad.errors import DatasetError

__all__ = [
    "IMAGE_SUFFIXES",
    "LOADING_RULES",
    "SIXTEEN_BIT_MAX",
    "deep_pixels",
    "file_digest",
    "image_remarks",
    "image_size",
    "is_deep",
    "load_image",
    "opened",
    "orientation",
    "read_header",
    "require_positive",
    "resize_image",
    "without_alpha",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LOADING_RULES = 2

SIXTEEN_BIT_MAX = 65535
_TWELVE_BIT_MAX = 4095
_UNUSED_BITS = 2
"""So many of the highest bits unused, and an image is dark: a quarter as bright."""
_BLACK_BITS = 4
"""So many, and it is nearly black."""
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262


@dataclass(frozen=True, slots=True)
class Remark:
    """What is worth knowing of how a file is read.

    :param text: a phrase that goes after "3 images" or "3 masks"; ``{level}`` stands
        for the largest ``level`` among them.
    :param level: a number that differs from file to file.
    :param telling: whether it can change a run's numbers, so that a run says it too.
    """

    text: str
    level: int = 0
    telling: bool = False

    def __str__(self) -> str:
        return self.text.format(level=self.level)


def load_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as 8-bit RGB.

    :param path: a file in a format of ``IMAGE_SUFFIXES``.
    :return: (H, W, 3), values 0-255.
    :raises DatasetError: when the file is missing, damaged, too large to be decoded
        safely, or holds floating-point or 32-bit pixels.
    """
    with opened(path) as image:
        if is_deep(image):
            return _eight_bit(*deep_pixels(path, image))
        if image.mode == "F":
            raise DatasetError(
                "floating-point pixels have no known range; convert to 8 or 16 bits"
            )
        return np.array(without_alpha(image).convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from a file's header, without decoding its pixels.

    :raises DatasetError: when the file is missing or not an image.
    """
    with opened(path) as image:
        return image.height, image.width


def image_remarks(path: Path) -> list[Remark]:
    """Say how the file's pixels differ from plain 8-bit RGB, if they do.

    Only a file of more than 8 bits is decoded, to see how many of them are used.

    :param path: an image file.
    :return: phrases such as ``"grey, read as three equal channels"``.
    :raises DatasetError: when the file is missing or damaged.
    """
    with opened(path) as image:
        remarks = _header_remarks(image)
        if is_deep(image):
            kind = "colour" if is_deep_colour(image) else "grey"
            pixels, brightest = deep_pixels(path, image)
            bits = brightest.bit_length()
            used = int(pixels.max()).bit_length()
            if used <= bits - _UNUSED_BITS:
                dark = "nearly black" if used <= bits - _BLACK_BITS else "dark"
                text = (
                    f"{bits}-bit {kind} of which {{level}} bits are used, {dark} "
                    f"once scaled by {brightest}; rescale to the full range"
                )
                return [Remark(text, used, telling=True), *remarks]
            text = f"{bits}-bit {kind}, scaled by {brightest} to 8 bits"
            return [Remark(text), *remarks]
        if image.has_transparency_data:
            remarks.append(Remark("with an alpha channel, which is dropped"))
        elif image.mode in {"1", "L"}:
            remarks.append(Remark("grey, read as three equal channels"))
        elif image.mode != "RGB":
            remarks.append(Remark(f"in colour mode {image.mode}, converted to RGB"))
        return remarks


def read_header(path: Path) -> tuple[bool, list[Remark]]:
    """Say what a file's header tells, without decoding its pixels.

    :param path: an image file.
    :return: whether it has more than 8 bits, and what can change a run's numbers.
    :raises DatasetError: when the file is missing or its header is damaged.
    """
    with opened(path) as image:
        return is_deep(image), _header_remarks(image)


def _header_remarks(image: Image.Image) -> list[Remark]:
    remarks = []
    if _has_more_frames(image):
        text = "with further frames or pages, ignored: only the first is read"
        remarks.append(Remark(text, telling=True))
    if orientation(image) != 1:
        text = "with an EXIF orientation, which is ignored"
        remarks.append(Remark(text, telling=True))
    return remarks


def resize_image(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resize an image to a square, bilinear with antialiasing.

    The aspect ratio is not kept, as everywhere in this field.

    :param image: (H, W, 3), values 0-255.
    :param size: side of the square in pixels.
    :return: (size, size, 3).
    :raises DatasetError: when ``size`` is not positive.
    """
    require_positive(size)
    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized)


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest (128 bits, hexadecimal) of a file's content.

    :raises DatasetError: when the file cannot be read.
    """
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DatasetError(f"{path}: {_reason(error)}") from error


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image, its pixels not decoded yet; what goes wrong becomes one line."""
    try:
        with Image.open(path) as image:
            # Pillow only warns of a size between its limit and twice its limit.
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            yield image
    # Decoders raise anything on damaged input: OSError, SyntaxError, struct.error, …
    except Exception as error:
        raise DatasetError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say in a few words why a file cannot be used, and how to mend it."""
    if isinstance(error, DatasetError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or its header is damaged; replace or remove the file"
    if isinstance(
        error, (Image.DecompressionBombWarning, Image.DecompressionBombError)
    ):
        limit = Image.MAX_IMAGE_PIXELS or 0
        return f"image of more than {limit:,} pixels; cut or resize it first"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    return f"image cannot be decoded: {first_line}; replace or remove the file"


def is_deep(image: Image.Image) -> bool:
    """Whether a file opened but not yet decoded has integers of more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;") or is_deep_colour(image)


def deep_pixels(path: Path, image: Image.Image) -> tuple[npt.NDArray[np.uint16], int]:
    """Return pixels of more than 8 bits, and the value that stands for white.

    :param path: the file.
    :param image: the same, opened but not decoded.
    :return: (H, W) for grey, (H, W, 3) for RGB or (H, W, 4) for CMYK.
    """
    if is_deep_colour(image):
        return load_deep_colour(path), SIXTEEN_BIT_MAX
    brightest = _TWELVE_BIT_MAX if raw_mode(image) == "I;12" else SIXTEEN_BIT_MAX
    # Pillow turns this kind of TIFF around for up to 8 bits only
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > SIXTEEN_BIT_MAX:
        raise DatasetError(
            f"expected grey values within 0-{SIXTEEN_BIT_MAX}, "
            f"found {pixels.min()} to {pixels.max()}; convert to 8 or 16 bits"
        )
    grey = pixels.astype(np.uint16)
    return (brightest - grey if white_is_zero else grey), brightest


def _eight_bit(pixels: npt.NDArray[np.uint16], brightest: int) -> npt.NDArray[np.uint8]:
    """Scale deep pixels to 0-255, rounded to nearest, as RGB."""
    scaled = _scale_table(brightest)[pixels]
    if scaled.ndim == 2:
        return np.repeat(scaled[:, :, None], 3, axis=2)
    if scaled.shape[2] == 4:
        height, width = scaled.shape[:2]
        ink = Image.frombytes("CMYK", (width, height), scaled.tobytes())
        return np.array(ink.convert("RGB"))
    return scaled


@cache
def _scale_table(brightest: int) -> npt.NDArray[np.uint8]:
    values = np.arange(SIXTEEN_BIT_MAX + 1, dtype=np.int64)
    scaled = (values * 255 + brightest // 2) // brightest
    return np.minimum(scaled, 255).astype(np.uint8)


def orientation(image: Image.Image) -> int:
    """Return the orientation that reading leaves to be applied, 1 for none.

    Pillow applies a TIFF's itself. It would decode a PNG to look for one behind its
    pixels, where no camera writes it.
    """
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data raise anything, and spoil no pixel
        return 1
    return found if found in range(1, 9) else 1


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame spoils no pixel of the first
        return True


def without_alpha(image: Image.Image) -> Image.Image:
    """Unfold a palette's transparency, which Pillow does not drop silently."""
    if image.mode == "La":  # multiplied with its alpha; no other conversion knows it
        image = image.convert("LA")
    return image.convert("RGBA") if image.has_transparency_data else image


def require_positive(size: int) -> None:
    """Refuse a side in pixels that is not positive, with a DatasetError."""
    if size < 1:
        raise DatasetError(f"expected an image size of at least 1 pixel, got {size}")
