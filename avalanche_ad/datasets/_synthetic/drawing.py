"""Random draws, noise, distances and a small raster, exact on every machine.

Only operations that IEEE 754 defines exactly are used (+, -, x, /, square root, floor,
comparisons), in double precision and without reductions whose order may differ between
machines. Sine, cosine and arc tangent are short polynomials of the project, and random
numbers are the raw bits of PCG64, whose stream NumPy keeps stable between versions.
Lengths are in half image sides: the image spans [-1, 1] x [-1, 1], y pointing down.
Angles are in turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Colour",
    "Scene",
    "Window",
    "around",
    "box",
    "cells",
    "cosine",
    "cover",
    "disc",
    "hexagon",
    "mix",
    "noise",
    "plane",
    "rotate",
    "segment",
    "sine",
    "smooth",
    "turns",
]

Array: TypeAlias = npt.NDArray[np.float64]
Colour: TypeAlias = tuple[float, float, float]
Window: TypeAlias = tuple[slice, slice]
T = TypeVar("T")


class Draw:
    """A stream of random numbers named by a key.

    Streams of different keys are independent, so no image depends on the order in
    which images are drawn.

    :param key: what the stream is for; its text is hashed into the seed.
    """

    def __init__(self, *key: object) -> None:
        digest = sha256("/".join(map(str, key)).encode()).digest()
        seeds = np.random.SeedSequence(int.from_bytes(digest[:16], "big"))
        self._bits = np.random.PCG64(seeds)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw one number from [low, high)."""
        return low + (high - low) * (int(self._bits.random_raw()) >> 11) / 2.0**53

    def integer(self, count: int) -> int:
        """Draw one of 0 … count - 1."""
        return int(self._bits.random_raw()) % count

    def choice(self, items: Sequence[T]) -> T:
        """Draw one of the items."""
        return items[self.integer(len(items))]

    def sign(self) -> float:
        """Draw -1 or 1."""
        return 2.0 * self.integer(2) - 1.0

    def lattice(self, *shape: int) -> Array:
        """Draw an array of numbers from [-1, 1)."""
        raw = np.asarray(self._bits.random_raw(int(np.prod(shape))), dtype=np.uint64)
        return ((raw >> np.uint64(11)) / 2.0**52 - 1.0).reshape(shape)

    def bell(self, *shape: int) -> Array:
        """Draw numbers of unit variance, each the sum of four uniform ones."""
        raw = np.asarray(self._bits.random_raw(int(np.prod(shape))), dtype=np.uint64)
        low = np.uint64(0xFFFF)
        total = raw >> np.uint64(48)
        for shift in (0, 16, 32):
            total = total + ((raw >> np.uint64(shift)) & low)
        return ((total / 65536.0 - 2.0) * 1.7320508).reshape(shape)


def sine(turn: Array) -> Array:
    """Return sin(2 pi turn), to 4e-6."""
    turn = turn - np.floor(turn + 0.5)
    folded = np.where(
        turn > 0.25, 0.5 - turn, np.where(turn < -0.25, -0.5 - turn, turn)
    )
    a = folded * 6.283185307179586
    s = a * a
    return a * (1.0 - s * (1 / 6 - s * (1 / 120 - s * (1 / 5040 - s / 362880))))


def cosine(turn: Array) -> Array:
    """Return cos(2 pi turn), to 4e-6."""
    return sine(turn + 0.25)


def turns(x: Array, y: Array) -> Array:
    """Return the angle of (x, y) in turns, in [-0.5, 0.5], to 1e-5."""
    a, b = np.abs(x), np.abs(y)
    r = np.minimum(a, b) / (np.maximum(a, b) + 1e-12)
    s = r * r
    angle = r * (
        0.99997726
        + s
        * (
            -0.33262347
            + s * (0.19354346 + s * (-0.11643287 + s * (0.05265332 - s * 0.0117212)))
        )
    )
    angle = angle / 6.283185307179586
    angle = np.where(b > a, 0.25 - angle, angle)
    angle = np.where(x < 0, 0.5 - angle, angle)
    return np.where(y < 0, -angle, angle)


def rotate(x: Array, y: Array, turn: float) -> tuple[Array, Array]:
    """Return the coordinates in a frame turned by ``turn``."""
    angle = np.array(turn)
    c, s = float(cosine(angle)), float(sine(angle))
    return c * x + s * y, c * y - s * x


def smooth(low: float, high: float, value: Array) -> Array:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``: 3 t^2 - 2 t^3."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return ``first`` with a share of ``second``."""
    r, g, b = (a + (c - a) * share for a, c in zip(first, second, strict=True))
    return r, g, b


def plane(colour: Colour) -> Array:
    """Return a colour as an array (3, 1, 1), ready to be shaded."""
    return np.array(colour)[:, None, None]


def disc(x: Array, y: Array, radius: float | Array) -> Array:
    """Return the signed distance to a disc around the origin, negative inside."""
    distance: Array = np.sqrt(x * x + y * y) - radius
    return distance


def box(
    x: Array, y: Array, width: float, height: float, rounding: float = 0.0
) -> Array:
    """Return the signed distance to a box of these half sides around the origin."""
    dx = np.abs(x) - (width - rounding)
    dy = np.abs(y) - (height - rounding)
    ox, oy = np.maximum(dx, 0.0), np.maximum(dy, 0.0)
    outside: Array = np.sqrt(ox * ox + oy * oy)
    return outside + np.minimum(np.maximum(dx, dy), 0.0) - rounding


def hexagon(x: Array, y: Array, inner: float) -> Array:
    """Return the signed distance (near the sides) to a hexagon of this inner radius."""
    a, b = np.abs(x), np.abs(y)
    return np.maximum(b, 0.8660254037844386 * a + 0.5 * b) - inner


def segment(
    x: Array, y: Array, start: tuple[float, float], end: tuple[float, float]
) -> Array:
    """Return the distance to the straight line from ``start`` to ``end``."""
    ex, ey = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    t = np.clip((px * ex + py * ey) / (ex * ex + ey * ey + 1e-12), 0.0, 1.0)
    dx, dy = px - t * ex, py - t * ey
    distance: Array = np.sqrt(dx * dx + dy * dy)
    return distance


def around(x: Array, y: Array, px: float, py: float, reach: float) -> Window:
    """Return the rows and columns of a frame that lie within ``reach`` of a point.

    :param x: (H, W) abscissa of every pixel in a moved, turned or scaled frame.
    :param y: (H, W) ordinate.
    :param px: the point's abscissa in that frame.
    :param py: the point's ordinate.
    :param reach: in the frame's units.
    """
    x0, y0 = float(x[0, 0]), float(y[0, 0])
    a, b = float(x[0, 1]) - x0, float(x[1, 0]) - x0
    c, d = float(y[0, 1]) - y0, float(y[1, 0]) - y0
    area = a * d - b * c
    column = ((px - x0) * d - (py - y0) * b) / area
    row = ((py - y0) * a - (px - x0) * c) / area
    steps = reach / float(np.sqrt(abs(area))) + 1.0

    def span(middle: float, count: int) -> slice:
        first = min(max(int(middle - steps), 0), count - 1)
        return slice(first, min(max(int(middle + steps) + 2, first + 1), count))

    return span(row, x.shape[0]), span(column, x.shape[1])


def cover(distance: Array, pixel: float) -> Array:
    """Return the share of each pixel that lies inside a signed distance."""
    return np.clip(0.5 - distance / pixel, 0.0, 1.0)


def noise(lattice: Array, u: Array, v: Array) -> Array:
    """Return smooth noise in [-1, 1]: a periodic lattice of values, faded between.

    :param lattice: values (rows, columns).
    :param u: column coordinate in lattice steps.
    :param v: row coordinate in lattice steps.
    :return: noise of the common shape of ``u`` and ``v``.
    """
    rows, columns = lattice.shape
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    fu, fv = fu * fu * (3.0 - 2.0 * fu), fv * fv * (3.0 - 2.0 * fv)
    left = iu.astype(np.int64) % columns
    top = iv.astype(np.int64) % rows
    right, bottom = (left + 1) % columns, (top + 1) % rows
    upper: Array = lattice[top, left] * (1.0 - fu) + lattice[top, right] * fu
    lower: Array = lattice[bottom, left] * (1.0 - fu) + lattice[bottom, right] * fu
    return upper * (1.0 - fv) + lower * fv


def cells(
    centers: Array, u: Array, v: Array
) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Return the distances to the two nearest of scattered points, and the nearest.

    :param centers: (rows, columns, 2) offsets in [-0.5, 0.5] of one point per unit
        square; periodic.
    :param u: column coordinate in squares.
    :param v: row coordinate in squares.
    :return: nearest distance, second distance, row * columns + column of the nearest.
    """
    rows, columns, _ = centers.shape
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu - 0.5, v - iv - 0.5
    ju, jv = iu.astype(np.int64), iv.astype(np.int64)
    first, second = np.full(u.shape, 9.0), np.full(u.shape, 9.0)
    nearest = np.zeros(u.shape, dtype=np.int64)
    flat = centers.reshape(-1, 2)
    for dv in (-1, 0, 1):
        row = (jv + dv) % rows * columns
        for du in (-1, 0, 1):
            number = row + (ju + du) % columns
            dx = flat[:, 0][number] + (du - fu)
            dy = flat[:, 1][number] + (dv - fv)
            square = dx * dx + dy * dy
            second = np.minimum(second, np.maximum(first, square))
            nearest = np.where(square < first, number, nearest)
            first = np.minimum(first, square)
    return np.sqrt(first), np.sqrt(second), nearest


class Canvas:
    """A colour raster with the coordinates of its pixel centres.

    :param rgb: values (3, H, W), 0-1, painted in place.
    :param x: (H, W) abscissa of every pixel centre.
    :param y: (H, W) ordinate.
    :param pixel: side of a pixel.
    """

    def __init__(self, rgb: Array, x: Array, y: Array, pixel: float) -> None:
        self.rgb = rgb
        self.x = x
        self.y = y
        self.pixel = pixel

    @classmethod
    def blank(cls, size: int, colour: Colour = (0.0, 0.0, 0.0)) -> Canvas:
        """Return a square canvas of one colour."""
        axis = (2.0 * np.arange(size) + 1.0) / size - 1.0
        x, y = np.broadcast_arrays(axis[None, :], axis[:, None])
        rgb = np.empty((3, size, size))
        rgb[:] = plane(colour)
        return cls(rgb, np.ascontiguousarray(x), np.ascontiguousarray(y), 2.0 / size)

    def copy(self) -> Canvas:
        """Return a canvas with pixels of its own."""
        return Canvas(self.rgb.copy(), self.x, self.y, self.pixel)

    def crop(self, part: Window) -> Canvas:
        """Return a part; painting it paints this canvas."""
        rows, columns = part
        return Canvas(
            self.rgb[:, rows, columns],
            self.x[rows, columns],
            self.y[rows, columns],
            self.pixel,
        )

    def paint(self, alpha: Array, colour: Colour | Array) -> None:
        """Lay a colour over the canvas, as opaque as ``alpha``.

        :param alpha: (H, W), 0-1.
        :param colour: one colour, or an array that broadcasts to (3, H, W).
        """
        tone = plane(colour) if isinstance(colour, tuple) else colour
        self.rgb += alpha * (tone - self.rgb)

    def shade(self, factor: Array) -> None:
        """Multiply the brightness by a factor per pixel."""
        self.rgb *= factor

    def noise(self, draw: Draw, across: float, down: float | None = None) -> Array:
        """Return smooth noise in [-1, 1] with this many cells across and down."""
        down = across if down is None else down
        lattice = draw.lattice(int(down) + 2, int(across) + 2)
        u = (self.x[:1] + 1.0) * (0.5 * across)
        v = (self.y[:, :1] + 1.0) * (0.5 * down)
        return noise(lattice, u, v)

    def line(
        self,
        points: Sequence[tuple[float, float]],
        widths: Sequence[float],
        softness: float = 0.0,
    ) -> Array:
        """Return the coverage (H, W) of a line through points.

        :param points: at least two points.
        :param widths: half width at every segment.
        :param softness: how far the edge fades beyond half a pixel.
        """
        alpha = np.zeros(self.x.shape)
        blur = self.pixel + softness
        for start, end, width in zip(points[:-1], points[1:], widths, strict=True):
            middle = (0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1]))
            reach = max(abs(end[0] - start[0]), abs(end[1] - start[1])) / 2
            rows, columns = around(self.x, self.y, *middle, reach + width + blur)
            x, y = self.x[rows, columns], self.y[rows, columns]
            distance = segment(x, y, start, end) - width
            part = alpha[rows, columns]
            np.maximum(part, cover(distance, blur), out=part)
        return alpha


Scene: TypeAlias = tuple[Canvas, Array]
