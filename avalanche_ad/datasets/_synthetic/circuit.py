"""The populated circuit board of the procedural data set.

Every function draws one image and returns it with the share of each pixel that belongs
to the product. ``draw`` decides the normal variation; ``kind`` and ``harm`` a
structural defect, whose random numbers come from ``harm`` alone, so that the sound twin
of a defective image is the same scene.
"""

from __future__ import annotations

import numpy as np

from avalanche_ad.datasets._synthetic.bench import place
from avalanche_ad.datasets._synthetic.drawing import (
    Array,
    Canvas,
    Colour,
    Draw,
    Scene,
    around,
    box,
    cover,
    disc,
    mix,
    plane,
    rotate,
    segment,
    smooth,
)

__all__ = ["circuit_board"]


# (x, y, half width, half height, colour, has metal ends)
_PARTS: tuple[tuple[float, float, float, float, Colour, bool], ...] = (
    (-0.42, -0.38, 0.13, 0.07, (0.26, 0.26, 0.28), True),
    (-0.42, -0.12, 0.13, 0.07, (0.26, 0.26, 0.28), True),
    (-0.45, 0.50, 0.16, 0.16, (0.56, 0.58, 0.60), False),
    (0.52, -0.52, 0.07, 0.14, (0.54, 0.47, 0.38), True),
    (0.24, -0.52, 0.07, 0.14, (0.54, 0.47, 0.38), True),
    (0.55, 0.62, 0.16, 0.08, (0.48, 0.29, 0.27), True),
)
_TRACES = (
    ((-0.80, -0.70), (0.00, -0.70), (0.24, -0.70), (0.52, -0.70)),
    ((-0.60, -0.38), (-0.80, -0.20), (-0.80, 0.30), (-0.45, 0.30)),
    ((-0.25, -0.12), (-0.05, -0.12), (-0.05, 0.05)),
    ((0.24, -0.34), (0.24, -0.18), (0.38, -0.05)),
    ((0.52, -0.34), (0.72, -0.14), (0.72, 0.40), (0.55, 0.50)),
    ((-0.20, 0.72), (0.10, 0.72), (0.20, 0.62), (0.35, 0.62)),
    ((-0.25, -0.38), (0.00, -0.38), (0.00, -0.60)),
)


def circuit_board(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a populated board: traces, pads, a chip and passive parts; two lacquers."""
    lacquer = draw.choice(((0.20, 0.40, 0.29), (0.22, 0.31, 0.46)))
    canvas = Canvas.blank(size, lacquer)
    x, y = place(canvas, draw, 0.035, 0.008)
    weave = 1.0 + 0.05 * canvas.noise(draw, 48) + 0.05 * canvas.noise(draw, 4)
    canvas.shade(weave)
    _traces(canvas, x, y, mix(lacquer, (0.60, 0.75, 0.50), 0.35), kind, harm)
    _components(canvas, x, y, draw, kind, harm)
    _chip(canvas, x, y, weave, kind, harm)
    return canvas, np.ones(x.shape)


def _traces(
    canvas: Canvas, x: Array, y: Array, tone: Colour, kind: str, harm: Draw
) -> None:
    """Draw the conductors and the pads at their ends."""
    cut = harm.integer(len(_TRACES)) if kind == "broken_trace" else -1
    for number, points in enumerate(_TRACES):
        line = np.full(x.shape, 9.0)
        for start, end in zip(points[:-1], points[1:], strict=True):
            middle = (0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1]))
            reach = 0.1 + max(abs(start[0] - end[0]), abs(start[1] - end[1])) / 2
            part = around(x, y, *middle, reach)
            near = segment(x[part], y[part], start, end)
            line[part] = np.minimum(line[part], near)
        if number == cut:
            start, end = points[0], points[1]
            t, gap = harm.uniform(0.35, 0.65), harm.uniform(0.07, 0.12)
            where = disc(
                x - start[0] - t * (end[0] - start[0]),
                y - start[1] - t * (end[1] - start[1]),
                gap,
            )
            line = np.maximum(line, 0.025 - where)
            scorch = smooth(gap + 0.04, gap - 0.02, where + gap)
            canvas.shade(1.0 - 0.75 * scorch * (0.8 + 0.3 * canvas.noise(harm, 40)))
        canvas.paint(cover(line - 0.025, canvas.pixel), tone)
        for px, py in (points[0], points[-1]):
            part = around(x, y, px, py, 0.1)
            pad = canvas.crop(part)
            ring = disc(x[part] - px, y[part] - py, 0.05)
            pad.paint(cover(ring, canvas.pixel), (0.58, 0.54, 0.38))
            pad.paint(cover(ring + 0.03, canvas.pixel), (0.24, 0.24, 0.22))


def _components(
    canvas: Canvas, x: Array, y: Array, draw: Draw, kind: str, harm: Draw
) -> None:
    """Draw the resistors and capacitors, slightly displaced."""
    hurt = harm.integer(len(_PARTS)) if kind in {"missing_part", "shifted_part"} else -1
    jitter = draw.lattice(len(_PARTS), 3)
    for number, (cx, cy, width, height, tone, ends) in enumerate(_PARTS):
        shade = 1.0 + 0.12 * float(jitter[number, 2])
        part = around(x, y, cx, cy, 0.4)
        view = canvas.crop(part)
        px = x[part] - cx - 0.010 * float(jitter[number, 0])
        py = y[part] - cy - 0.010 * float(jitter[number, 1])
        # what is soldered under the part, seen when it is missing
        for side in (-1.0, 1.0):
            qx = px - side * width * (1.0 if width > height else 0.0)
            qy = py - side * height * (0.0 if width > height else 1.0)
            view.paint(
                cover(box(qx, qy, 0.06, 0.06, 0.02), canvas.pixel), (0.54, 0.54, 0.50)
            )
        if number == hurt and kind == "missing_part":
            residue = cover(box(px, py, width, height, 0.02), canvas.pixel)
            spots = smooth(-0.1, 0.3, view.noise(harm, 34))
            view.paint(0.75 * residue * spots, (0.86, 0.86, 0.82))
            continue
        if number == hurt:
            px, py = rotate(px, py, harm.sign() * harm.uniform(0.035, 0.09))
            px, py = px - harm.uniform(-0.05, 0.05), py - harm.uniform(-0.05, 0.05)
        round_part = not ends
        shape = disc(px, py, width) if round_part else box(px, py, width, height, 0.015)
        view.shade(1.0 - 0.25 * smooth(0.05, 0.0, shape))
        light = shade * (1.05 - 0.8 * (px + py))
        alpha = cover(shape, canvas.pixel)
        view.paint(alpha, plane(tone) * light)
        if round_part:
            cross = np.minimum(np.abs(px), np.abs(py)) - 0.012
            view.paint(
                cover(np.maximum(cross, shape + 0.04), canvas.pixel), (0.44, 0.45, 0.47)
            )
        else:
            long = np.abs(px) - width if width > height else np.abs(py) - height
            view.paint(alpha * cover(-0.045 - long, canvas.pixel), (0.58, 0.58, 0.57))


def _chip(
    canvas: Canvas, x: Array, y: Array, weave: Array, kind: str, harm: Draw
) -> None:
    """Draw the board's chip and its eight pins."""
    part = around(x, y, 0.22, 0.22, 0.42)
    view = canvas.crop(part)
    cx, cy = x[part] - 0.22, y[part] - 0.22
    pin = np.abs(cy * 9.0 - np.floor(cy * 9.0) - 0.5) / 9.0 - 0.028
    pins = np.maximum(pin, box(cx, cy, 0.36, 0.24))
    if kind == "missing_pin":
        row = np.floor(cy * 9.0)
        first = harm.integer(4) - 2
        gone = (row >= first) & (row < first + 2) & (cx * harm.sign() > 0)
        gone = gone & (box(cx, cy, 0.36, 0.24) < 0.0)
        torn = smooth(-0.2, 0.3, view.noise(harm, 44))
        pins = np.where(gone, 9.0, pins)
        view.paint(gone * (0.4 + 0.6 * torn), (0.80, 0.68, 0.40))
    view.paint(cover(pins, canvas.pixel), (0.58, 0.58, 0.57))
    chip = box(cx, cy, 0.26, 0.28, 0.02)
    view.shade(1.0 - 0.35 * smooth(0.04, 0.0, chip))
    view.paint(
        cover(chip, canvas.pixel),
        plane((0.26, 0.26, 0.28)) * weave[part],
    )
    view.paint(
        cover(disc(cx + 0.17, cy + 0.19, 0.035), canvas.pixel), (0.35, 0.35, 0.36)
    )
    for line in range(3):
        text = box(cx - 0.02, cy + 0.06 - 0.09 * line, 0.15 - 0.03 * line, 0.014)
        view.paint(0.35 * cover(text, canvas.pixel), (0.75, 0.75, 0.75))
