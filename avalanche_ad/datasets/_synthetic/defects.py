"""Defects of the surface, laid over an image of a sound product.

Every function paints one defect into the canvas, on the product only, and returns
nothing: the mask is what changed visibly. ``strength`` scales the contrast.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets._synthetic.drawing import (
    Array,
    Canvas,
    Draw,
    cosine,
    cover,
    disc,
    plane,
    rotate,
    sine,
    smooth,
)

__all__ = ["SURFACE_DEFECTS", "SurfaceDefect"]

SurfaceDefect = Callable[[Canvas, Array, Draw, float], None]
Point = tuple[float, float]


def _spot(canvas: Canvas, body: Array, draw: Draw, margin: float = 0.75) -> Point:
    """Draw a point on the product."""
    size = body.shape[0]
    for _ in range(200):
        x, y = draw.uniform(-margin, margin), draw.uniform(-margin, margin)
        row, column = int((y + 1.0) * 0.5 * size), int((x + 1.0) * 0.5 * size)
        if body[row, column] > 0.95:
            return x, y
    return 0.0, 0.0


def _direction(turn: float) -> Point:
    angle = np.array(turn)
    return float(cosine(angle)), float(sine(angle))


def _walk(
    draw: Draw, start: Point, turn: float, step: float, count: int, wander: float
) -> list[Point]:
    """Draw a path whose direction changes by up to ``wander`` turns a step."""
    points = [start]
    for _ in range(count):
        turn += draw.uniform(-wander, wander)
        c, s = _direction(turn)
        x, y = points[-1]
        points.append((x + step * c, y + step * s))
    return points


def _blob(canvas: Canvas, draw: Draw, spot: Point, radius: float) -> Array:
    """Return the signed distance to an irregular patch."""
    x, y = rotate(canvas.x - spot[0], canvas.y - spot[1], draw.uniform())
    stretch = draw.uniform(1.0, 1.6)
    ragged = 0.45 * canvas.noise(draw, 9) + 0.25 * canvas.noise(draw, 20)
    return disc(x / stretch, y * stretch, radius * (1.0 + 0.9 * ragged))


def scratch(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Draw a thin line, lighter or darker, with a shadow on one side."""
    spot = _spot(canvas, body, draw)
    count = 5 + draw.integer(5)
    path = _walk(draw, spot, draw.uniform(), draw.uniform(0.06, 0.13), count, 0.03)
    width = draw.uniform(0.022, 0.036)
    widths = [width * draw.uniform(0.7, 1.2) for _ in range(count)]
    depth = draw.sign() * draw.uniform(0.35, 0.65) * strength
    shadow = [(x + 1.6 * width, y + 1.6 * width) for x, y in path]
    canvas.shade(1.0 - 0.5 * depth * canvas.line(shadow, widths) * body)
    canvas.shade(1.0 + depth * canvas.line(path, widths) * body)


def crack(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Draw a dark jagged line with one or two branches."""
    spot = _spot(canvas, body, draw, 0.6)
    turn = draw.uniform()
    count = 6 + draw.integer(7)
    path = _walk(draw, spot, turn, 0.06, count, 0.13)
    width = draw.uniform(0.018, 0.032)
    alpha = canvas.line(path, [width * (1.0 - 0.7 * i / count) for i in range(count)])
    for _ in range(1 + draw.integer(2)):
        at = 1 + draw.integer(count - 2)
        fork = _walk(draw, path[at], turn + draw.sign() * 0.12, 0.05, 4, 0.13)
        alpha = np.maximum(alpha, canvas.line(fork, [0.6 * width] * 4))
    canvas.shade(
        1.0 - np.clip(draw.uniform(0.45, 0.75) * strength, 0, 0.9) * alpha * body
    )


def stain(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Draw a spill that tints the surface, darker at its rim."""
    distance = _blob(canvas, draw, _spot(canvas, body, draw), draw.uniform(0.12, 0.25))
    tint = draw.choice(((0.62, 0.34, 0.10), (0.12, 0.10, 0.10), (0.95, 0.95, 0.88)))
    soft = draw.uniform(0.01, 0.05)
    alpha = smooth(soft, -soft, distance) * body
    rim = smooth(0.04, 0.0, np.abs(distance)) * body
    depth = min(draw.uniform(0.30, 0.70) * strength, 0.9)
    grain = 0.85 + 0.5 * canvas.noise(draw, 34)
    canvas.paint(np.clip(depth * grain, 0.0, 1.0) * alpha, tint)
    canvas.shade(1.0 - 0.35 * depth * rim)


def hole(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Draw a dark hole with a lit edge."""
    radius = draw.uniform(0.08, 0.15)
    distance = _blob(canvas, draw, _spot(canvas, body, draw), radius)
    rim = smooth(0.045, 0.0, np.abs(distance)) * body
    canvas.shade(1.0 + 0.25 * strength * rim)
    depth = min(draw.uniform(0.45, 0.8) * strength, 0.9)
    canvas.paint(depth * cover(distance, canvas.pixel) * body, (0.05, 0.05, 0.06))


def cut_paste(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Move a patch of the surface to another place, turned and resized."""
    spot, source = _spot(canvas, body, draw, 0.6), _spot(canvas, body, draw, 0.6)
    width, height = draw.uniform(0.15, 0.24), draw.uniform(0.15, 0.24)
    turn = draw.choice((0.25, 0.125, 0.375)) + draw.uniform(-0.06, 0.06)
    x, y = canvas.x - spot[0], canvas.y - spot[1]
    u, v = rotate(x, y, turn)
    zoom = draw.uniform(0.75, 1.3)
    patch = _sample(canvas, source[0] + zoom * u, source[1] + zoom * v)
    x, y = rotate(x, y, draw.uniform())
    inside = np.maximum(np.abs(x) - width, np.abs(y) - height)
    gain = 1.0 + draw.sign() * draw.uniform(0.06, 0.14) * strength
    canvas.paint(cover(inside, 2.0 * canvas.pixel) * body, patch * gain)


def _sample(canvas: Canvas, x: Array, y: Array) -> Array:
    """Return the colours (3, H, W) of the nearest pixels, mirrored at the border."""
    size = canvas.x.shape[0]

    def index(position: Array) -> npt.NDArray[np.int64]:
        number = np.floor((position + 1.0) * (0.5 * size)).astype(np.int64) % (2 * size)
        mirrored: npt.NDArray[np.int64] = np.minimum(number, 2 * size - 1 - number)
        return mirrored

    return canvas.rgb[:, index(y), index(x)]


def fibre(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Lay a thin foreign thread over the product."""
    spot = _spot(canvas, body, draw)
    count = 10 + draw.integer(8)
    path = _walk(draw, spot, draw.uniform(), 0.055, count, 0.06)
    width = draw.uniform(0.016, 0.026)
    shadow = [(x + 0.02, y + 0.025) for x, y in path]
    canvas.shade(
        1.0 - 0.25 * strength * canvas.line(shadow, [width] * count, 0.02) * body
    )
    tone = draw.choice(((0.92, 0.92, 0.88), (0.10, 0.10, 0.14), (0.66, 0.16, 0.16)))
    depth = min(draw.uniform(0.5, 0.9) * strength, 1.0)
    canvas.paint(depth * canvas.line(path, [width] * count) * body, tone)


def debris(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Scatter foreign crumbs around one place."""
    spot = _spot(canvas, body, draw)
    tone = draw.choice(((0.90, 0.88, 0.80), (0.16, 0.30, 0.62), (0.72, 0.36, 0.12)))
    depth = min(draw.uniform(0.5, 0.95) * strength, 1.0)
    for _ in range(4 + draw.integer(5)):
        at = (spot[0] + draw.uniform(-0.2, 0.2), spot[1] + draw.uniform(-0.2, 0.2))
        radius = draw.uniform(0.04, 0.075)
        distance = _blob(canvas, draw, at, radius)
        canvas.paint(depth * cover(distance, canvas.pixel) * body, tone)


def colour_shift(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Discolour a patch without changing its structure."""
    distance = _blob(canvas, draw, _spot(canvas, body, draw), draw.uniform(0.12, 0.26))
    alpha = smooth(0.03, -0.03, distance) * body
    gains = draw.choice(((1.25, 1.0, 0.75), (0.78, 1.0, 1.25), (1.1, 0.85, 1.1)))
    depth = draw.uniform(0.5, 1.1) * strength
    factor = plane(gains)
    canvas.rgb *= 1.0 + (factor - 1.0) * depth * alpha


def dent(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Press the surface in: it is displaced, lit on one side and dark on the other."""
    spot = _spot(canvas, body, draw)
    radius = draw.uniform(0.20, 0.30)
    x, y = canvas.x - spot[0], canvas.y - spot[1]
    reach = smooth(radius, 0.0, np.sqrt(x * x + y * y))
    pull = draw.uniform(0.35, 0.6)
    moved = _sample(canvas, canvas.x - pull * reach * x, canvas.y - pull * reach * y)
    c, s = _direction(draw.uniform())
    slope = (c * x + s * y) / radius * reach * 4.0
    shaded = moved * (1.0 + draw.uniform(0.30, 0.60) * strength * slope)
    canvas.paint(smooth(0.0, 0.1, reach) * body, shaded)


def smear(canvas: Canvas, body: Array, draw: Draw, strength: float) -> None:
    """Wear a patch smooth: its texture is averaged along one direction."""
    distance = _blob(canvas, draw, _spot(canvas, body, draw), draw.uniform(0.12, 0.24))
    c, s = _direction(draw.uniform())
    reach = draw.uniform(0.16, 0.26) * min(strength, 1.5)
    total = np.zeros_like(canvas.rgb)
    for step in range(-4, 5):
        t = step / 4.0 * reach
        total = total + _sample(canvas, canvas.x + t * c, canvas.y + t * s)
    canvas.paint(
        smooth(0.02, -0.02, distance) * body, (1.0 + 0.1 * strength) * total / 9.0
    )


SURFACE_DEFECTS: dict[str, SurfaceDefect] = {
    "colour_shift": colour_shift,
    "crack": crack,
    "cut_paste": cut_paste,
    "debris": debris,
    "dent": dent,
    "fibre": fibre,
    "hole": hole,
    "scratch": scratch,
    "smear": smear,
    "stain": stain,
}
