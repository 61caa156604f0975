"""Defects painted onto normal images: something to tell the normal from."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["PAINTING_RULES", "paint_defects"]

PAINTING_RULES = 1
"""Their number, so that cached features notice a change."""

_Pixels = npt.NDArray[np.float32]
_VISIBLE = 8 / 255
"""A change of a channel below which a pixel is as it was."""


def paint_defects(
    image: npt.NDArray[np.uint8], rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Paint one to three defects onto an image.

    Each is a blob of random outline or a scratch, filled with pixels from elsewhere in
    the image, a texture, another brightness, a blur, or the pixels beside it, and laid
    over the image with an opacity between 0.15 and 1. Colours spread as the image's
    own do: a grey image gets grey defects.

    :param image: (H, W, 3), values 0-255.
    :param rng: what is drawn from.
    :return: the image with defects, and where they change it, (H, W).

    Patches from elsewhere are CutPaste's (Li et al., CVPR 2021, arXiv 2104.04015),
    textures of some opacity in random regions DRAEM's (Zavrtanik et al., ICCV 2021,
    arXiv 2108.07610, Eq. 1), here drawn in place of taken from photographs.

    >>> image = np.full((64, 64, 3), 128, np.uint8)
    >>> painted, where = paint_defects(image, np.random.default_rng(0))
    >>> painted.shape, where.shape, bool((painted == image)[~where].mean() > 0.9)
    ((64, 64, 3), (64, 64), True)
    """
    pixels = (image / 255).astype(np.float32)
    spread, where = _Colours(pixels), np.zeros(image.shape[:2], np.bool_)
    for _ in range(int(rng.integers(1, 4))):
        scratch = rng.random() < 0.3
        outline = (_scratch if scratch else _blob)(image.shape[:2], rng)
        box = outline.getbbox()
        if box is None:
            continue
        if rng.random() < 0.5:
            outline = outline.filter(
                ImageFilter.GaussianBlur(min(image.shape[:2]) / 128)
            )
        area = (slice(box[1], box[3]), slice(box[0], box[2]))
        shape = np.asarray(outline, np.float32)[area] / 255
        fill, least = _fill(pixels, area, spread, rng)
        opacity = math.exp(rng.uniform(math.log(least), 0))
        alpha = (opacity * shape)[..., None]
        before = pixels[area]
        after = before * (1 - alpha) + fill.clip(0, 1) * alpha
        changed = np.abs(after - before).max(-1) > _VISIBLE
        where[area] |= changed & (shape > 0.3)
        pixels[area] = after
    return (pixels * 255).round().astype(np.uint8), where


class _Colours:
    """The colours of an image as a Gaussian."""

    def __init__(self, pixels: _Pixels) -> None:
        flat = pixels.reshape(-1, 3)
        flat = flat[:: max(1, len(flat) // 4096)]
        self.mean = flat.mean(0)
        values, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
        self.root = vectors * np.sqrt(values.clip(0))

    def difference(self, rng: np.random.Generator, scale: float = 1.0) -> _Pixels:
        found: _Pixels = (scale * self.root @ rng.standard_normal(3)).astype(np.float32)
        return found


def _blob(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a closed curve about a random place, filled."""
    height, width = size
    radius = min(size) * math.exp(rng.uniform(math.log(0.012), math.log(0.2)))
    angle = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    outline = np.ones_like(angle)
    for wave in range(2, 7):
        strength = 0.35 * rng.standard_normal() / wave
        outline += strength * np.cos(wave * angle + rng.uniform(0, 2 * math.pi))
    longer = math.exp(rng.uniform(-0.5, 0.5))
    x = radius * longer * outline * np.cos(angle)
    y = radius / longer * outline * np.sin(angle)
    turn = rng.uniform(0, math.pi)
    column = rng.uniform(0, width) + x * math.cos(turn) - y * math.sin(turn)
    row = rng.uniform(0, height) + x * math.sin(turn) + y * math.cos(turn)
    drawn = Image.new("L", (width, height))
    points = list(zip(column.tolist(), row.tolist(), strict=True))
    ImageDraw.Draw(drawn).polygon(points, fill=255)
    return drawn


def _scratch(size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Return a line that wanders."""
    height, width = size
    side = min(size)
    steps = 40
    turns = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.uniform(-0.3, 0.3, steps))
    stride = side * math.exp(rng.uniform(math.log(0.08), math.log(0.55))) / steps
    column = rng.uniform(0.1, 0.9) * width + stride * np.cumsum(np.cos(turns))
    row = rng.uniform(0.1, 0.9) * height + stride * np.cumsum(np.sin(turns))
    drawn = Image.new("L", (width, height))
    points = list(zip(column.tolist(), row.tolist(), strict=True))
    thickness = max(1, round(side * rng.uniform(0.005, 0.03)))
    ImageDraw.Draw(drawn).line(points, fill=255, width=thickness, joint="curve")
    return drawn


def _fill(
    pixels: _Pixels,
    area: tuple[slice, slice],
    colours: _Colours,
    rng: np.random.Generator,
) -> tuple[_Pixels, float]:
    """Return what an area is filled with, and the least opacity it needs."""
    own = pixels[area]
    side = min(pixels.shape[:2])
    kind = rng.choice(["elsewhere", "texture", "tone", "blur", "beside"], p=_SHARES)
    if kind == "elsewhere":
        found = _moved(pixels, area, rng.uniform(0.1, 0.9, 2), rng.random(2) < 0.5)
        return found * rng.uniform(0.7, 1.3) + colours.difference(rng, 0.5), 0.4
    if kind == "texture":
        grain = 5 * (_smooth(own.shape[:2], side, rng) - 0.5)[..., None]
        middle = colours.mean + colours.difference(rng, 1.5)
        return middle + grain * colours.difference(rng), 0.15
    if kind == "tone":
        gain = math.exp(rng.uniform(-1.2, 1.0))
        return own * gain + colours.difference(rng), 0.3
    if kind == "beside":
        return _moved(pixels, area, rng.uniform(-0.05, 0.05, 2)), 0.7
    radius = side * rng.uniform(0.01, 0.025)
    blurred = Image.fromarray((own * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(radius)
    )
    return (np.asarray(blurred) / 255).astype(np.float32), 0.7


_SHARES = [0.33, 0.17, 0.33, 0.07, 0.1]


def _moved(
    pixels: _Pixels,
    area: tuple[slice, slice],
    by: npt.NDArray[np.float64],
    mirrored: npt.NDArray[np.bool_] | None = None,
) -> _Pixels:
    """Return the pixels a share of the image's sides away from an area."""
    index = []
    for axis, one in enumerate(area):
        whole = pixels.shape[axis]
        rows = (np.arange(one.start, one.stop) + round(by[axis] * whole)) % whole
        index.append(rows[::-1] if mirrored is not None and mirrored[axis] else rows)
    found: _Pixels = pixels[np.ix_(*index)]
    return found


def _smooth(size: tuple[int, int], side: int, rng: np.random.Generator) -> _Pixels:
    """Return noise of three scales, about 0 to 1."""
    height, width = size
    total, weights = np.zeros(size, np.float32), 0.0
    for scale, weight in ((12, 1.0), (40, 0.5), (110, 0.25)):
        cell = max(1.0, side / scale)
        rows, columns = (max(2, math.ceil(n / cell)) for n in size)
        coarse = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
        smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(smooth, np.float32)
        weights += weight
    return total / np.float32(weights)
