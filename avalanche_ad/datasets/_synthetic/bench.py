"""What the products lie on, and how they lie."""

from __future__ import annotations

from avalanche_ad.datasets._synthetic.drawing import (
    Array,
    Canvas,
    Colour,
    Draw,
    cosine,
    rotate,
    smooth,
)

__all__ = ["bench", "cast_shadow", "place"]


def bench(size: int, draw: Draw, colour: Colour, roughness: float = 0.04) -> Canvas:
    """Return the plain support that the product lies on."""
    canvas = Canvas.blank(size, colour)
    canvas.shade(
        1.0 + roughness * (canvas.noise(draw, 4) + 0.6 * canvas.noise(draw, 36))
    )
    u, v = 15.0 * canvas.x + draw.uniform(), 15.0 * canvas.y + draw.uniform()
    canvas.shade(1.0 + 0.16 * cosine(u) * cosine(v))
    return canvas


def place(canvas: Canvas, draw: Draw, shift: float, turn: float) -> tuple[Array, Array]:
    """Return coordinates of a product moved by up to ``shift`` and ``turn``."""
    x = canvas.x - draw.uniform(-shift, shift)
    y = canvas.y - draw.uniform(-shift, shift)
    return rotate(x, y, draw.uniform(-turn, turn))


def cast_shadow(canvas: Canvas, distance: Array, reach: float, depth: float) -> None:
    canvas.shade(1.0 - depth * smooth(reach, -0.02, distance))
