"""Machined parts of the procedural data set: bolt, gear and nut.

Every function draws one image and returns it with the share of each pixel that belongs
to the product. ``draw`` decides the normal variation; ``kind`` and ``harm`` a
structural defect, whose random numbers come from ``harm`` alone, so that the sound twin
of a defective image is the same scene.
"""

from __future__ import annotations

import numpy as np

from avalanche_ad.datasets._synthetic.bench import bench, cast_shadow, place
from avalanche_ad.datasets._synthetic.drawing import (
    Draw,
    Scene,
    box,
    cosine,
    cover,
    disc,
    hexagon,
    noise,
    plane,
    sine,
    smooth,
    turns,
)

__all__ = ["bolt", "gear", "hex_nut"]


def bolt(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a threaded bolt lying nearly level, steel or brass."""
    metal = draw.choice(((0.58, 0.59, 0.61), (0.60, 0.54, 0.42)))
    canvas = bench(size, draw, (0.70, 0.70, 0.68))
    u, v = place(canvas, draw, 0.06, 0.06)
    u, v = 0.84 * u, 0.84 * v
    phase = draw.uniform()
    if kind == "bent":
        bend = harm.sign() * harm.uniform(0.16, 0.30)
        reach = np.maximum(u - harm.uniform(0.0, 0.2), 0.0)
        v = v + bend * reach * reach * 2.0
    pitch = 13.0
    worn = np.ones(u.shape)
    thread = cosine(u * pitch + 0.35 * v + phase)
    depth = smooth(-0.18, -0.10, u)
    if kind == "worn_thread":
        middle, width = harm.uniform(0.0, 0.45), harm.uniform(0.07, 0.15)
        scar = smooth(width + 0.04, width, np.abs(u - middle))
        depth = depth * (1.0 - scar)
        worn = 1.0 + scar * (0.35 + 0.5 * canvas.noise(harm, 50))
    tip = 0.06 * smooth(0.60, 0.72, u)
    shaft = np.maximum(
        np.abs(v) - (0.150 + 0.018 * thread * depth - tip), np.abs(u - 0.06) - 0.66
    )
    head = box(u + 0.60, v, 0.15, 0.30, 0.05)
    whole = np.minimum(shaft, head)
    cast_shadow(canvas, whole, 0.10, 0.15)
    round_light = 1.08 - 10.0 * (v + 0.03) * (v + 0.03)
    light = round_light * (1.0 + 0.24 * depth * thread)
    brushed = 1.0 + 0.05 * noise(draw.lattice(64, 64), 3.0 * u, 40.0 * v)
    body = cover(whole, canvas.pixel)
    canvas.paint(
        cover(shaft, canvas.pixel),
        plane(metal) * np.clip(light, 0.45, 1.35) * brushed * worn,
    )
    facets = np.where(np.abs(v) < 0.13, 1.04, 0.90 + 0.05 * np.where(v > 0, -1.0, 1.0))
    facets = (
        facets
        * (1.0 + 0.14 * cosine(16.0 * v) * cosine(16.0 * u))
        * (1.0 - 0.12 * smooth(0.10, 0.15, np.abs(u + 0.60)))
    )
    canvas.paint(cover(head, canvas.pixel), plane(metal) * facets * brushed)
    return canvas, body


def gear(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a spur gear turned by any angle, bright or dull steel."""
    metal = draw.choice(((0.66, 0.67, 0.69), (0.54, 0.55, 0.57)))
    canvas = bench(size, draw, (0.47, 0.48, 0.50), 0.04)
    x, y = place(canvas, draw, 0.05, 0.5)
    radius = np.sqrt(x * x + y * y)
    angle = turns(x, y)
    count = 16
    phase = (angle + 0.5) * count
    tooth = np.floor(phase).astype(np.int64) % count
    flank = np.abs(phase - np.floor(phase) - 0.5)
    height = 0.14 * smooth(0.34, 0.18, flank)
    if kind in {"missing_tooth", "worn_tooth"}:
        first = harm.integer(count)
        gone = (tooth - first) % count < 1 + harm.integer(2)
        left = 0.0 if kind == "missing_tooth" else harm.uniform(0.2, 0.5)
        height = np.where(gone, left * height, height)
    outline = (radius - 0.72 - height) * 0.8
    key = box(x - 0.16, y, 0.05, 0.045)
    holes = np.full(x.shape, 9.0)
    for number in range(5):
        a = np.array(number / 5.0)
        holes = np.minimum(
            holes, disc(x - 0.42 * float(cosine(a)), y - 0.42 * float(sine(a)), 0.105)
        )
    empty = np.minimum(np.minimum(holes, radius - 0.15), key)
    solid = np.maximum(outline, -empty)
    cast_shadow(canvas, outline, 0.08, 0.2)
    body = cover(solid, canvas.pixel)
    # turned metal glints in two opposite sectors fixed to the lamp, not to the part
    lamp = turns(canvas.x, canvas.y)
    glint = cosine(2.0 * (lamp - draw.uniform()))
    lathe = noise(draw.lattice(64, 8), 8.0 * angle, 42.0 * radius)
    if kind in {"missing_tooth", "worn_tooth"}:
        fracture = (
            gone * smooth(0.58, 0.64, radius) * (0.9 + 1.3 * canvas.noise(harm, 44))
        )
    else:
        fracture = np.zeros(x.shape)
    lathe = lathe + 3.0 * cosine(radius * 15.0)
    light = (
        1.0
        + 0.45 * fracture
        + 0.07 * glint
        + 0.06 * lathe
        - 0.15 * smooth(-0.05, 0.0, solid)
    )
    groove = smooth(0.02, 0.0, np.abs(radius - 0.62)) + smooth(
        0.02, 0.0, np.abs(radius - 0.24)
    )
    canvas.paint(body, plane(metal) * light * (1.0 - 0.3 * groove))
    return canvas, body


def hex_nut(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a hexagonal nut at any angle, zinc or bronze, plain or flanged."""
    metal = draw.choice(((0.62, 0.64, 0.66), (0.62, 0.55, 0.42)))
    flanged = draw.integer(2)
    canvas = bench(size, draw, (0.46, 0.46, 0.48), 0.04)
    x, y = place(canvas, draw, 0.06, 0.5)
    radius = np.sqrt(x * x + y * y)
    angle = turns(x, y)
    outline = hexagon(x, y, 0.64)
    whole = np.minimum(outline, radius - 0.82) if flanged else outline
    missing = np.full(x.shape, 9.0)
    if kind == "broken_corner":
        a = np.array((harm.integer(6) + 0.5) / 6.0 + harm.uniform(-0.02, 0.02))
        c, s = float(cosine(a)), float(sine(a))
        rough = 0.04 * canvas.noise(harm, 16)
        missing = harm.uniform(0.58, 0.66) - (x * c + y * s) + rough
        outline = np.maximum(outline, -missing)
        whole = np.maximum(whole, -missing)
    solid = np.maximum(whole, 0.33 - radius)
    cast_shadow(canvas, whole, 0.08, 0.2)
    body = cover(solid, canvas.pixel)
    lamp = cosine(turns(canvas.x, canvas.y) - draw.uniform())
    lathe = noise(draw.lattice(64, 8), 8.0 * angle, 36.0 * radius)
    lathe = lathe + 3.4 * cosine(radius * 15.0)
    rough = canvas.noise(draw, 40)
    tone = plane(metal)
    if flanged:
        canvas.paint(body, tone * (0.86 + 0.05 * lamp + 0.05 * rough))
        canvas.shade(1.0 - 0.3 * smooth(0.05, 0.0, outline) * body)
    light = 1.0 + 0.06 * lamp + 0.06 * lathe + 0.03 * rough
    chamfer = smooth(0.60, 0.68, radius)
    light = light - chamfer * (0.14 - 0.08 * lamp)
    top = np.maximum(outline, 0.33 - radius)
    canvas.paint(cover(top, canvas.pixel), tone * light)
    if kind == "broken_corner":
        fracture = cover(top, canvas.pixel) * smooth(0.14, 0.05, missing)
        canvas.shade(1.0 + fracture * (0.1 + 0.5 * canvas.noise(harm, 40)))
    thread = 0.5 + 0.5 * cosine(radius * 26.0 + angle)
    wall = smooth(0.33, 0.24, radius)
    canvas.paint(
        cover(radius - 0.33, canvas.pixel) * smooth(0.20, 0.24, radius),
        tone * (0.50 + 0.25 * thread) * (1.0 - 0.5 * wall),
    )
    if kind == "stripped_thread":
        sector = np.abs(angle - harm.uniform(-0.4, 0.4))
        width = harm.uniform(0.07, 0.16)
        flat = cover(radius - 0.33, canvas.pixel) * smooth(0.20, 0.24, radius)
        canvas.paint(
            flat * smooth(width, width - 0.02, sector),
            tone * (0.85 + 0.5 * canvas.noise(harm, 44)),
        )
    return canvas, body
