"""Image and mask files decoded into arrays, always in the same form.

Whatever a file holds, an image becomes 8-bit RGB and a mask becomes booleans. The
rules, which ``LOADING_RULES`` numbers so that cached features notice a change:

* grey, palette, black-and-white and CMYK images are converted to RGB;
* an alpha channel is dropped, never blended: published results on the usual data sets
  are made that way, and there is no background to blend with;
* 16-bit grey is scaled by its full range, 65535 -> 255, never by the brightest pixel
  found, which would make brightness differ from image to image;
* the EXIF orientation is ignored: pixels stay as stored, since masks are drawn on them;
* of a file with several frames the first is read;
* a mask is true wherever a colour channel is not zero, so masks that number their
  defects (VisA) and masks of 0 and 255 read the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from avalanche_ad.errors import DatasetError

__all__ = [
    "IMAGE_SUFFIXES",
    "LOADING_RULES",
    "describe_conversion",
    "file_digest",
    "image_size",
    "load_image",
    "load_mask",
    "resize_image",
    "resize_mask",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LOADING_RULES = 1

_SIXTEEN_BIT_MAX = 65535
_DARK_BITS = 14
_ORIENTATION = 0x0112


def load_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image file as 8-bit RGB.

    :param path: a file in a format of ``IMAGE_SUFFIXES``.
    :return: (H, W, 3), values 0-255.
    :raises DatasetError: when the file is missing, damaged, too large to be decoded
        safely, or holds floating-point or 32-bit pixels.
    """
    with _opened(path) as image:
        if _is_integer_grey(image):
            grey = _sixteen_to_eight_bit(np.asarray(image))
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.mode == "F":
            raise DatasetError(
                "floating-point pixels have no known range; convert to 8 or 16 bits"
            )
        return np.array(_without_alpha(image).convert("RGB"))


def load_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read a mask file; true where the image is defective.

    :param path: a file in a format of ``IMAGE_SUFFIXES``.
    :return: (H, W).
    :raises DatasetError: when the file is missing or damaged.
    """
    with _opened(path) as image:
        if _is_integer_grey(image) or image.mode in {"F", "1", "L"}:
            return _nonzero(np.asarray(image))
        # By colour, not by palette index: index 0 need not be the black one.
        colours = np.asarray(_without_alpha(image).convert("RGB"))
        return _nonzero(colours.max(axis=2))


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from a file's header, without decoding its pixels.

    :raises DatasetError: when the file is missing or not an image.
    """
    with _opened(path, decode=False) as image:
        return image.height, image.width


def describe_conversion(path: Path) -> str | None:
    """Say how the file's pixels differ from 8-bit RGB, or ``None`` if they do not.

    :param path: an image file.
    :return: a phrase such as ``"grey, read as three equal channels"``.
    :raises DatasetError: when the file is missing or damaged.
    """
    with _opened(path, decode=False) as image:
        if _is_integer_grey(image):
            used = int(np.asarray(image).max()).bit_length()
            if used <= _DARK_BITS:
                return (
                    f"16-bit grey of which {used} bits are used, nearly black once "
                    "scaled by 65535; rescale to the full range"
                )
            return "16-bit grey, scaled by 65535 to 8 bits"
        if image.has_transparency_data:
            return "with an alpha channel, which is dropped"
        if image.mode in {"1", "L"}:
            return "grey, read as three equal channels"
        if image.mode != "RGB":
            return f"in colour mode {image.mode}, converted to RGB"
        if image.getexif().get(_ORIENTATION, 1) != 1:
            return "with an EXIF orientation, which is ignored"
        return None


def resize_image(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Resize an image to a square, bilinear with antialiasing.

    The aspect ratio is not kept, as everywhere in this field.

    :param image: (H, W, 3), values 0-255.
    :param size: side of the square in pixels.
    :return: (size, size, 3).
    :raises DatasetError: when ``size`` is not positive.
    """
    _require_positive(size)
    if image.shape[:2] == (size, size):
        return image
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(resized)


def resize_mask(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """Resize a mask to a square, by nearest neighbour.

    :param mask: (H, W).
    :param size: side of the square in pixels.
    :return: (size, size).
    :raises DatasetError: when ``size`` is not positive.
    """
    _require_positive(size)
    if mask.shape == (size, size):
        return mask
    grey = Image.fromarray(mask.astype(np.uint8))
    return np.array(grey.resize((size, size), Image.Resampling.NEAREST), dtype=np.bool_)


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest (128 bits, hexadecimal) of a file's content.

    :raises DatasetError: when the file cannot be read.
    """
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise DatasetError(f"{path}: {_reason(error)}") from error


@contextmanager
def _opened(path: Path, *, decode: bool = True) -> Iterator[Image.Image]:
    """Open an image; whatever goes wrong inside becomes one line with the path."""
    try:
        with Image.open(path) as image:
            # Pillow only warns of a size between its limit and twice its limit.
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError
            if decode:
                image.load()
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


def _nonzero(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = pixels != 0
    return mask


def _is_integer_grey(image: Image.Image) -> bool:
    """Whether pixels are grey integers of more than 8 bits."""
    return image.mode == "I" or image.mode.startswith("I;")


def _sixteen_to_eight_bit(pixels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Scale 0-65535 to 0-255, rounded to nearest."""
    wide = pixels.astype(np.int64)
    if wide.min() < 0 or wide.max() > _SIXTEEN_BIT_MAX:
        raise DatasetError(
            f"expected grey values within 0-{_SIXTEEN_BIT_MAX}, "
            f"found {wide.min()} to {wide.max()}; convert to 8 or 16 bits"
        )
    return ((wide * 255 + _SIXTEEN_BIT_MAX // 2) // _SIXTEEN_BIT_MAX).astype(np.uint8)


def _without_alpha(image: Image.Image) -> Image.Image:
    """Unfold a palette's transparency, which Pillow does not drop silently."""
    return image.convert("RGBA") if image.has_transparency_data else image


def _require_positive(size: int) -> None:
    if size < 1:
        raise DatasetError(f"expected an image size of at least 1 pixel, got {size}")
