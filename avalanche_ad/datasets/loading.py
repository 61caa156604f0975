"""Image and mask files decoded into arrays, always in the same form.

Whatever a file holds, an image becomes 8-bit RGB and a mask becomes booleans. The
rules, which ``LOADING_RULES`` numbers so that cached features notice a change:

* grey, palette, black-and-white and CMYK images are converted to RGB;
* an alpha channel is dropped, never blended: published results on the usual data sets
  are made that way, and there is no background to blend with;
* grey and colour of 16 bits are scaled by their full range, 65535 -> 255, never by the
  brightest pixel found, which would make brightness differ from image to image;
  a TIFF that says its grey has 12 bits is scaled by 4095;
* the EXIF orientation is ignored: pixels stay as stored, since masks are drawn on them;
  only a TIFF's own orientation is applied, as every reader of TIFF does;
* of a file with several frames the first is read;
* a mask is true wherever a colour channel is not zero, so masks that number their
  defects (VisA) and masks of 0 and 255 read the same; but noise and blurred edges, and
  all of a lossy format, count from half of the brightest value on: ``read_mask``.

What is odd about a file, ``image_remarks`` and ``read_mask`` say in phrases.
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
    "Remark",
    "file_digest",
    "image_remarks",
    "image_size",
    "is_deep",
    "load_image",
    "load_mask",
    "read_header",
    "read_mask",
    "resize_image",
    "resize_mask",
]

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LOADING_RULES = 2

_SIXTEEN_BIT_MAX = 65535
_TWELVE_BIT_MAX = 4095
_UNUSED_BITS = 2
"""So many of the highest bits unused, and an image is dark: a quarter as bright."""
_BLACK_BITS = 4
"""So many, and it is nearly black."""
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_LOSSY_FORMATS = frozenset({"JPEG", "MPO"})
_MOST_NUMBERS = 16
_LARGEST_NUMBER = 63
_NOISE = 8
"""A value below this part of the brightest may be noise, unless it fills an area."""
_APART = 0.9
_AROUND = [(row, column) for row in range(3) for column in range(3)]
_AROUND.remove((1, 1))
# the turn that brings stored pixels upright, and the one that takes it back
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}


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
    with _opened(path) as image:
        if is_deep(image):
            return _eight_bit(*_deep_pixels(path, image))
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
    return read_mask(path)[0]


def read_mask(
    path: Path, image_path: Path | None = None
) -> tuple[npt.NDArray[np.bool_], list[Remark]]:
    """Read a mask file, and say what is odd about it.

    It is true from half of its brightest value on. Without loss it is so too wherever a
    darker value marks an area: one that fills areas (most of its pixels have its own
    value all around) or stands alone (they have nothing but it and zero around, and it
    is no speckle or at least an eighth of the brightest). Noise and blurred edges do
    neither, so an edge pixel counts from half on, however many levels edges have. Where
    darker pixels are mostly of a gradient none counts, and where there are at most 16
    values, none above 63, they are numbers and all count. Fully transparent pixels are
    background; a mask whose colour says nothing is taken from its alpha channel.

    An image whose pixels are stored turned, which its EXIF orientation tells viewers
    to turn upright, may have its mask drawn on either. Where only the upright reading
    has the image's size, the mask is turned back onto the pixels as stored.

    :param path: a file in a format of ``IMAGE_SUFFIXES``.
    :param image_path: the image that it belongs to, whose orientation counts.
    :return: the mask, (H, W), and the remarks.
    :raises DatasetError: when the mask's file is missing or damaged.
    """
    with _opened(path) as image:
        lossy = _is_lossy(path, image)
        turned = _orientation(image)
        levels, remarks = _levels(path, image)
    mask, more = _from_levels(levels, lossy)
    remarks += more
    if image_path is None:
        return mask, remarks
    try:
        with _opened(image_path) as image:
            size, upright = (image.height, image.width), _orientation(image)
    except DatasetError:  # for those to tell who need its pixels
        return mask, remarks
    mask, more = _onto_stored(mask, turned, size, upright)
    return mask, remarks + more


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from a file's header, without decoding its pixels.

    :raises DatasetError: when the file is missing or not an image.
    """
    with _opened(path) as image:
        return image.height, image.width


def image_remarks(path: Path) -> list[Remark]:
    """Say how the file's pixels differ from plain 8-bit RGB, if they do.

    Only a file of more than 8 bits is decoded, to see how many of them are used.

    :param path: an image file.
    :return: phrases such as ``"grey, read as three equal channels"``.
    :raises DatasetError: when the file is missing or damaged.
    """
    with _opened(path) as image:
        remarks = _header_remarks(image)
        if is_deep(image):
            kind = "colour" if is_deep_colour(image) else "grey"
            pixels, brightest = _deep_pixels(path, image)
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
    with _opened(path) as image:
        return is_deep(image), _header_remarks(image)


def _header_remarks(image: Image.Image) -> list[Remark]:
    remarks = []
    if _has_more_frames(image):
        text = "with further frames or pages, ignored: only the first is read"
        remarks.append(Remark(text, telling=True))
    if _orientation(image) != 1:
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
def _opened(path: Path) -> Iterator[Image.Image]:
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


def _deep_pixels(path: Path, image: Image.Image) -> tuple[npt.NDArray[np.uint16], int]:
    """Return pixels of more than 8 bits, and the value that stands for white.

    :param path: the file.
    :param image: the same, opened but not decoded.
    :return: (H, W) for grey, (H, W, 3) for RGB or (H, W, 4) for CMYK.
    """
    if is_deep_colour(image):
        return load_deep_colour(path), _SIXTEEN_BIT_MAX
    brightest = _TWELVE_BIT_MAX if raw_mode(image) == "I;12" else _SIXTEEN_BIT_MAX
    # Pillow turns this kind of TIFF around for up to 8 bits only
    white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > _SIXTEEN_BIT_MAX:
        raise DatasetError(
            f"expected grey values within 0-{_SIXTEEN_BIT_MAX}, "
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
    values = np.arange(_SIXTEEN_BIT_MAX + 1, dtype=np.int64)
    scaled = (values * 255 + brightest // 2) // brightest
    return np.minimum(scaled, 255).astype(np.uint8)


def _levels(
    path: Path, image: Image.Image
) -> tuple[npt.NDArray[np.generic], list[Remark]]:
    """Return how bright a mask is at every pixel, (H, W), zero where nothing is drawn.

    By colour, not by palette index: index 0 need not be the black one.
    """
    if is_deep(image) and image.mode != "CMYK":
        grey = None if is_deep_colour(image) else np.asarray(image)
        if grey is not None and (grey.min() < 0 or grey.max() > _SIXTEEN_BIT_MAX):
            return (grey != 0).astype(np.uint8), []  # of 32 bits, which number
        pixels, _ = _deep_pixels(path, image)
        return (pixels if pixels.ndim == 2 else pixels.max(axis=2)), []
    if image.mode == "F":
        return np.abs(np.nan_to_num(np.asarray(image))), []
    if image.mode in {"1", "L"}:
        return np.asarray(image).astype(np.uint8), []
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")).max(axis=2), []
    pixels = np.asarray(_without_alpha(image))
    colours, alpha = pixels[:, :, :3].max(axis=2), pixels[:, :, 3]
    if alpha.min() == alpha.max():
        return colours, []
    if colours.min() == colours.max():
        text = "of one colour, taken from their alpha channel instead"
        return alpha, [Remark(text, telling=True)]
    hidden = (alpha == 0) & (colours > 0)
    if not hidden.any():
        return colours, []
    text = "with colour where they are transparent, which counts as background"
    return np.where(alpha > 0, colours, 0), [Remark(text, telling=True)]


def _from_levels(
    levels: npt.NDArray[np.generic], lossy: bool
) -> tuple[npt.NDArray[np.bool_], list[Remark]]:
    """Say which brightness is a defect's; the rule is in ``read_mask``."""
    drawn: npt.NDArray[np.bool_] = levels != 0
    brightest = float(levels.max())
    if not brightest:
        return drawn, []
    bright: npt.NDArray[np.bool_] = np.greater_equal(levels, brightest / 2)
    dark = drawn ^ bright
    if not lossy:
        if not dark.any():
            return drawn, []
        bright |= _areas(levels, dark, brightest)
        if np.array_equal(bright, drawn):
            return drawn, []
    what = "in a lossy format" if lossy else "with noise or blurred edges"
    if np.array_equal(bright, drawn):
        return drawn, [Remark(f"{what}; use PNG with the values 0 and 255")]
    text = f"{what}, read as defect from half of their brightest value on; use PNG with"
    text += " the values 0 and 255"
    if brightest <= _LARGEST_NUMBER:
        text = (
            f"{what} and nearly black, of at most {{level}} of 255, read as defect "
            "from half of their brightest value on; use PNG"
        )
    return bright, [Remark(text, int(brightest), telling=True)]


def _areas(
    levels: npt.NDArray[np.generic], dark: npt.NDArray[np.bool_], brightest: float
) -> npt.NDArray[np.bool_]:
    """Return which dark pixels have a value that marks areas; see ``read_mask``."""
    if levels.dtype == np.uint8 and brightest <= _LARGEST_NUMBER:
        numbers = np.count_nonzero(Image.fromarray(levels).histogram()[1:])
        if numbers <= _MOST_NUMBERS:
            return dark
    rows, columns = np.nonzero(dark)
    padded = np.pad(levels, 1, mode="edge")
    own = levels[rows, columns]
    equal = np.zeros(len(own), dtype=np.int64)
    alone = np.ones(len(own), dtype=np.bool_)
    for row, column in _AROUND:
        other = padded[rows + row, columns + column]
        same = other == own
        equal += same
        alone &= same | (other == 0)
    values, index, count = np.unique(own, return_inverse=True, return_counts=True)

    def share(of: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        return np.asarray(np.bincount(index, weights=of) / count)

    filled, apart = share(equal == len(_AROUND)) > 0.5, share(alone)
    compact = (apart > _APART) & (share(equal) > len(_AROUND) / 2)
    strong = (apart > 0.5) & (values >= brightest / _NOISE)
    marks: npt.NDArray[np.bool_] = (filled | compact | strong)[index]
    found = np.zeros_like(dark)
    if 2 * np.count_nonzero(marks) > len(own):
        found[rows[marks], columns[marks]] = True
    return found


def _is_lossy(path: Path, image: Image.Image) -> bool:
    """Whether a file opened keeps its pixels but roughly."""
    if image.format == "WEBP":
        with path.open("rb") as file:
            return b"VP8L" not in file.read(4096)
    if image.format == "TIFF":
        return "jpeg" in str(image.info.get("compression"))
    return image.format in _LOSSY_FORMATS


def _onto_stored(
    mask: npt.NDArray[np.bool_], turned: int, size: tuple[int, int], upright: int
) -> tuple[npt.NDArray[np.bool_], list[Remark]]:
    """Turn a mask that is drawn on the upright image onto the pixels as stored.

    :param mask: its own pixels as stored.
    :param turned: the mask's own EXIF orientation.
    :param size: (height, width) of the image as stored.
    :param upright: the image's EXIF orientation.
    """
    if turned == upright:
        return mask, []
    other = Image.fromarray(mask)
    if turned != 1:
        other = other.transpose(_TURNS[turned][0])
    if upright != 1:
        other = other.transpose(_TURNS[upright][1])
    moved = np.asarray(other).astype(np.bool_)
    if moved.shape != size or np.array_equal(moved, mask):
        return mask, []
    if mask.shape != size:
        text = (
            "drawn on the image as its EXIF orientation shows it, turned back onto "
            "its pixels as stored"
        )
        return moved, [Remark(text, telling=True)]
    text = (
        "drawn either on the image as stored or as its EXIF orientation shows it, "
        "which their size does not tell: taken as stored; remove the orientation"
    )
    return mask, [Remark(text, telling=True)]


def _orientation(image: Image.Image) -> int:
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
    return found if found in _TURNS else 1


def _has_more_frames(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame spoils no pixel of the first
        return True


def _without_alpha(image: Image.Image) -> Image.Image:
    """Unfold a palette's transparency, which Pillow does not drop silently."""
    if image.mode == "La":  # multiplied with its alpha; no other conversion knows it
        image = image.convert("LA")
    return image.convert("RGBA") if image.has_transparency_data else image


def _require_positive(size: int) -> None:
    if size < 1:
        raise DatasetError(f"expected an image size of at least 1 pixel, got {size}")
