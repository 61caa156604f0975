"""Mask files decoded into booleans: where an image is defective.

A mask is true wherever a colour channel is not zero, so masks that number their defects
(VisA) and masks of 0 and 255 read the same; but noise and blurred edges, and all of a
lossy format, count from half of the brightest value on: :func:`read_mask`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from avalanche_ad.datasets.deep_colour import is_deep_colour
from avalanche_ad.datasets.loading import (
    SIXTEEN_BIT_MAX,
    Remark,
    deep_pixels,
    is_deep,
    opened,
    orientation,
    require_positive,
    without_alpha,
)
from avalanche_ad.errors import DatasetError

__all__ = ["load_mask", "read_mask", "resize_mask"]

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
    with opened(path) as image:
        lossy = _is_lossy(path, image)
        turned = orientation(image)
        levels, remarks = _levels(path, image)
    mask, more = _from_levels(levels, lossy)
    remarks += more
    if image_path is None:
        return mask, remarks
    try:
        with opened(image_path) as image:
            size, upright = (image.height, image.width), orientation(image)
    except DatasetError:  # for those to tell who need its pixels
        return mask, remarks
    mask, more = _onto_stored(mask, turned, size, upright)
    return mask, remarks + more


def resize_mask(mask: npt.NDArray[np.bool_], size: int) -> npt.NDArray[np.bool_]:
    """Resize a mask to a square, by nearest neighbour.

    :param mask: (H, W).
    :param size: side of the square in pixels.
    :return: (size, size).
    :raises DatasetError: when ``size`` is not positive.
    """
    require_positive(size)
    if mask.shape == (size, size):
        return mask
    grey = Image.fromarray(mask.astype(np.uint8))
    return np.array(grey.resize((size, size), Image.Resampling.NEAREST), dtype=np.bool_)


def _levels(
    path: Path, image: Image.Image
) -> tuple[npt.NDArray[np.generic], list[Remark]]:
    """Return how bright a mask is at every pixel, (H, W), zero where nothing is drawn.

    By colour, not by palette index: index 0 need not be the black one.
    """
    if is_deep(image) and image.mode != "CMYK":
        grey = None if is_deep_colour(image) else np.asarray(image)
        if grey is not None and (grey.min() < 0 or grey.max() > SIXTEEN_BIT_MAX):
            return (grey != 0).astype(np.uint8), []  # of 32 bits, which number
        pixels, _ = deep_pixels(path, image)
        return (pixels if pixels.ndim == 2 else pixels.max(axis=2)), []
    if image.mode == "F":
        return np.abs(np.nan_to_num(np.asarray(image))), []
    if image.mode in {"1", "L"}:
        return np.asarray(image).astype(np.uint8), []
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")).max(axis=2), []
    pixels = np.asarray(without_alpha(image))
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
