"""The ten products of the procedural data set.

Every function draws one image and returns it with the share of each pixel that belongs
to the product. ``draw`` decides the normal variation; ``kind`` and ``harm`` a
structural defect, whose random numbers come from ``harm`` alone, so that the sound twin
of a defective image is the same scene.
"""

from __future__ import annotations

import numpy as np

from avalanche_ad.datasets._synthetic.drawing import (
    Array,
    Canvas,
    Colour,
    Draw,
    box,
    cells,
    cosine,
    cover,
    disc,
    hexagon,
    mix,
    noise,
    rotate,
    segment,
    sine,
    smooth,
    turns,
)

__all__ = [
    "bolt",
    "brush",
    "cable_section",
    "capsule_print",
    "circuit_board",
    "flask_top",
    "gear",
    "hazel_shell",
    "hex_nut",
    "zip_fastener",
]

Scene = tuple[Canvas, Array]


def _bench(size: int, draw: Draw, colour: Colour, roughness: float = 0.04) -> Canvas:
    """Return the plain support that the product lies on."""
    canvas = Canvas.blank(size, colour)
    canvas.shade(1.0 + roughness * (canvas.noise(draw, 4) + 0.6 * canvas.noise(draw, 36)))
    return canvas


def _place(
    canvas: Canvas, draw: Draw, shift: float, turn: float
) -> tuple[Array, Array]:
    """Return coordinates of a product moved by up to ``shift`` and ``turn``."""
    x = canvas.x - draw.uniform(-shift, shift)
    y = canvas.y - draw.uniform(-shift, shift)
    return rotate(x, y, draw.uniform(-turn, turn))


def _cast_shadow(canvas: Canvas, distance: Array, reach: float, depth: float) -> None:
    canvas.shade(1.0 - depth * smooth(reach, -0.02, distance))


def bolt(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a threaded bolt lying at any angle, steel or brass."""
    metal = draw.choice(((0.58, 0.59, 0.61), (0.60, 0.54, 0.42)))
    canvas = _bench(size, draw, (0.70, 0.70, 0.68))
    u, v = _place(canvas, draw, 0.06, 0.06)
    u, v = 0.84 * u, 0.84 * v
    phase = draw.uniform()
    if kind == "bent":
        bend = harm.sign() * harm.uniform(0.25, 0.45)
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
    _cast_shadow(canvas, whole, 0.10, 0.15)
    round_light = 1.08 - 10.0 * (v + 0.03) * (v + 0.03)
    light = round_light * (1.0 + 0.15 * depth * thread)
    brushed = 1.0 + 0.05 * noise(draw.lattice(64, 64), 3.0 * u, 40.0 * v)
    body = cover(whole, canvas.pixel)
    canvas.paint(
        cover(shaft, canvas.pixel),
        np.array(metal)[:, None, None] * np.clip(light, 0.45, 1.35) * brushed * worn,
    )
    facets = np.where(np.abs(v) < 0.13, 1.04, 0.90 + 0.05 * np.where(v > 0, -1.0, 1.0))
    facets = facets * (1.0 - 0.12 * smooth(0.10, 0.15, np.abs(u + 0.60)))
    canvas.paint(
        cover(head, canvas.pixel), np.array(metal)[:, None, None] * facets * brushed
    )
    return canvas, body


def brush(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a brush head from above: tufts of bristles in rows, three colourings."""
    outer = draw.choice(((0.40, 0.55, 0.74), (0.74, 0.46, 0.46), (0.42, 0.64, 0.52)))
    canvas = _bench(size, draw, (0.42, 0.43, 0.45), 0.04)
    x, y = _place(canvas, draw, 0.05, 0.012)
    handle = np.minimum(
        box(x, y + 0.12, 0.52, 0.74, 0.36), box(x, y - 0.8, 0.16, 0.5, 0.05)
    )
    _cast_shadow(canvas, handle, 0.08, 0.4)
    body = cover(handle, canvas.pixel)
    canvas.paint(body, np.array((0.74, 0.75, 0.76))[:, None, None] * (1.0 - 0.2 * smooth(-0.2, 0.0, handle)))
    grain = noise(draw.lattice(96, 96), 38.0 * x, 38.0 * y)
    lean = draw.lattice(2, 40)
    tint = draw.lattice(40)
    spots = [
        (column, row)
        for row in range(8)
        for column in range(5)
        if not (row in (0, 7) and column in (0, 4))
    ]
    lost = harm.integer(len(spots)) if kind in {"missing_tuft", "splayed_tuft"} else -1
    for number, (column, row) in enumerate(spots):
        cx = (column - 2) * 0.185 + 0.012 * float(lean[0, number])
        cy = (row - 3.5) * 0.165 - 0.12 + 0.012 * float(lean[1, number])
        radius, stretch = 0.077, 1.0
        tone = outer if column in (0, 4) or row in (0, 7) else (0.80, 0.80, 0.77)
        if number == lost and kind == "missing_tuft":
            tone, radius = (0.20, 0.19, 0.19), 0.07
        if number == lost and kind == "splayed_tuft":
            cx, cy = cx + harm.uniform(-0.1, 0.1), cy + harm.uniform(-0.1, 0.1)
            stretch, radius = harm.uniform(1.7, 2.4), 0.08
        # local coordinates are those of the turned head; the window is a little larger
        where = np.abs(x - cx) + np.abs(y - cy) < 0.34
        rows = np.flatnonzero(where.any(axis=1))
        columns = np.flatnonzero(where.any(axis=0))
        part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        dx, dy = (x[part] - cx) / stretch, y[part] - cy
        view = Canvas(canvas.rgb[(slice(None), *part)], dx, dy, canvas.pixel)
        distance = disc(dx, dy, radius)
        view.shade(1.0 - 0.25 * smooth(0.05, 0.0, distance))
        light = 1.0 + 0.22 * grain[part] + 0.06 * float(tint[number]) - 1.0 * (dx + dy)
        if number == lost and kind == "missing_tuft":
            light = 0.8 + 4.0 * (dx + dy)
        view.paint(cover(distance, canvas.pixel), np.array(tone)[:, None, None] * light)
    return canvas, body


def cable_section(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw the cut end of a cable: three insulated cores of copper strands."""
    canvas = _bench(size, draw, (0.36, 0.37, 0.38))
    x, y = _place(canvas, draw, 0.04, 0.04)
    sheath = disc(x, y, 0.88)
    body = cover(sheath, canvas.pixel)
    _cast_shadow(canvas, sheath, 0.12, 0.25)
    grey = draw.uniform(0.52, 0.62)
    grain = 1.0 + 0.06 * canvas.noise(draw, 30)
    canvas.paint(body, grey * grain[None] * np.ones((3, 1, 1)))
    canvas.paint(cover(disc(x, y, 0.76), canvas.pixel), (0.28, 0.28, 0.29))
    filler = canvas.noise(draw, 22)
    canvas.paint(cover(disc(x, y, 0.76), canvas.pixel) * (0.25 + 0.25 * filler), (0.42, 0.40, 0.36))
    tones: list[Colour] = [(0.46, 0.34, 0.26), (0.34, 0.44, 0.62), (0.50, 0.57, 0.32)]
    hurt = harm.integer(3) if kind != "good" else -1
    if kind == "wrong_core":
        tones[hurt] = harm.choice(((0.68, 0.26, 0.24), (0.16, 0.16, 0.18), (0.74, 0.60, 0.20)))
    for number, tone in enumerate(tones):
        angle = np.array(number / 3.0 + 0.25 + draw.uniform(-0.012, 0.012))
        cx, cy = 0.41 * float(cosine(angle)), 0.41 * float(sine(angle))
        dx, dy = x - cx, y - cy
        radius = draw.uniform(0.315, 0.335)
        distance = disc(dx, dy, radius)
        light = 1.10 - 0.35 * smooth(-0.10, 0.0, distance) - 0.25 * (dx + dy)
        canvas.paint(cover(distance, canvas.pixel), np.array(tone)[:, None, None] * light * grain)
        if kind == "cut_insulation" and number == hurt:
            toward = np.array(harm.uniform())
            edge = harm.uniform(0.24, 0.29)
            px = dx - edge * float(cosine(toward))
            py = dy - edge * float(sine(toward))
            notch = disc(px, py, harm.uniform(0.08, 0.14))
            canvas.paint(cover(notch + 0.03 * filler, canvas.pixel), (0.12, 0.11, 0.10))
        bore = disc(dx, dy, 0.215)
        canvas.paint(cover(bore, canvas.pixel), (0.32, 0.23, 0.17))
        a, b = rotate(dx, dy, draw.uniform())
        pitch = 0.090
        best = np.full(a.shape, 9.0)
        home_a, home_b = np.zeros(a.shape), np.zeros(a.shape)
        # a hexagonal lattice is two rectangular ones, shifted by half a cell
        for offset in (0.0, 0.5):
            ka = np.floor(a / pitch + 0.5 - offset) + offset
            kb = np.floor(b / (pitch * 1.7320508) + 0.5 - offset) + offset
            qa, qb = ka * pitch, kb * (pitch * 1.7320508)
            d = np.sqrt((a - qa) * (a - qa) + (b - qb) * (b - qb))
            closer = d < best
            best = np.where(closer, d, best)
            home_a, home_b = np.where(closer, qa, home_a), np.where(closer, qb, home_b)
        present = home_a * home_a + home_b * home_b < 0.19 * 0.19
        if kind == "missing_strand" and number == hurt:
            ga, gb = harm.uniform(-0.11, 0.11), harm.uniform(-0.11, 0.11)
            gap = harm.uniform(0.055, 0.10)
            away = (home_a - ga) * (home_a - ga) + (home_b - gb) * (home_b - gb)
            present = present & (away > gap * gap)
        copper = np.array((0.70, 0.50, 0.36))[:, None, None]
        strand = 1.10 - 4.0 * best
        canvas.paint(present * cover(best - 0.040, canvas.pixel), copper * strand)
    return canvas, body


def capsule_print(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a two-part capsule with a printed code, in three colour pairs."""
    left, right = draw.choice(
        (
            ((0.74, 0.42, 0.34), (0.78, 0.74, 0.67)),
            ((0.38, 0.53, 0.63), (0.70, 0.73, 0.76)),
            ((0.76, 0.64, 0.36), (0.60, 0.46, 0.38)),
        )
    )
    canvas = _bench(size, draw, (0.66, 0.66, 0.64))
    u, v = _place(canvas, draw, 0.06, 0.025)
    u, v = 0.92 * u, 0.92 * v
    pinch = np.zeros(u.shape)
    if kind == "squeezed":
        middle = harm.uniform(-0.55, 0.55)
        width = harm.uniform(0.14, 0.26)
        side = harm.sign()
        profile = 1.0 - smooth(0.0, width, np.abs(u - middle))
        pinch = harm.uniform(0.07, 0.15) * profile * smooth(-0.1, 0.2, side * v)
    body_d = segment(u, v, (-0.50, 0.0), (0.50, 0.0)) - 0.325 + pinch
    cap_d = np.maximum(segment(u, v, (-0.50, 0.0), (0.50, 0.0)) - 0.345 + pinch, u + 0.05)
    whole = np.minimum(body_d, cap_d)
    _cast_shadow(canvas, whole, 0.14, 0.20)
    body = cover(whole, canvas.pixel)
    depth = np.clip(-whole / 0.33, 0.0, 1.0)
    light = 0.84 + 0.26 * depth * (2.0 - depth) - 0.25 * v
    canvas.paint(cover(body_d, canvas.pixel), np.array(right)[:, None, None] * light)
    canvas.paint(cover(cap_d, canvas.pixel), np.array(left)[:, None, None] * light)
    canvas.paint(body * smooth(0.035, 0.0, np.abs(u + 0.05)) * 0.4, mix(left, (0.0, 0.0, 0.0), 0.6))
    if kind == "squeezed":
        crease = smooth(0.03, 0.10, pinch) * body
        canvas.shade(1.0 - crease * (0.30 + 0.35 * canvas.noise(harm, 30)))
    ink = 0.80 * mix_contrast(right)
    shift_u, shift_v, faint, lost = 0.0, 0.0, 1.0, -1
    if kind == "misprint":
        fault = harm.integer(3)
        if fault == 0:
            shift_u, shift_v = harm.uniform(0.03, 0.09), harm.sign() * harm.uniform(0.05, 0.12)
        elif fault == 1:
            lost = harm.integer(3)
        else:
            faint = harm.uniform(0.0, 0.45)
    glyphs = ("5", "0", "8")
    for number, glyph in enumerate(glyphs):
        if number == lost:
            continue
        gu, gv = u - 0.16 - 0.17 * number - shift_u, v - shift_v
        strokes = np.full(u.shape, 9.0)
        for bar in _SEGMENTS[glyph]:
            strokes = np.minimum(strokes, segment(gu, gv, *bar))
        canvas.paint(faint * 0.6 * cover(strokes - 0.017, canvas.pixel), (ink, ink, ink))
    glint = smooth(0.045, 0.0, np.abs(v + 0.17)) * smooth(0.60, 0.45, np.abs(u))
    canvas.paint(0.22 * glint * body, (1.0, 1.0, 1.0))
    return canvas, body


def mix_contrast(colour: Colour) -> float:
    """Return a grey that reads on the colour: dark on light, light on dark."""
    return 0.15 if sum(colour) > 1.8 else 1.1


_A = ((-0.05, -0.10), (0.05, -0.10))
_B = ((0.05, -0.10), (0.05, 0.0))
_C = ((0.05, 0.0), (0.05, 0.10))
_D = ((-0.05, 0.10), (0.05, 0.10))
_E = ((-0.05, 0.0), (-0.05, 0.10))
_F = ((-0.05, -0.10), (-0.05, 0.0))
_G = ((-0.05, 0.0), (0.05, 0.0))
# the digits of a seven-segment display
_SEGMENTS = {
    "0": (_A, _B, _C, _D, _E, _F),
    "5": (_A, _F, _G, _C, _D),
    "8": (_A, _B, _C, _D, _E, _F, _G),
}


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
    canvas = Canvas.blank(size, (0.55, 0.55, 0.52))
    x, y = _place(canvas, draw, 0.035, 0.008)
    board = box(x, y, 1.2, 1.2, 0.06)
    body = cover(board, canvas.pixel)
    weave = 1.0 + 0.05 * canvas.noise(draw, 48) + 0.05 * canvas.noise(draw, 4)
    canvas.paint(body, np.array(lacquer)[:, None, None] * weave)
    trace_tone = mix(lacquer, (0.60, 0.75, 0.50), 0.35)
    cut = harm.integer(len(_TRACES)) if kind == "broken_trace" else -1
    for number, points in enumerate(_TRACES):
        line = np.full(x.shape, 9.0)
        for start, end in zip(points[:-1], points[1:], strict=True):
            line = np.minimum(line, segment(x, y, start, end))
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
        canvas.paint(cover(line - 0.025, canvas.pixel), trace_tone)
        for px, py in (points[0], points[-1]):
            pad = canvas.near(px, py, 0.2)
            rows, columns = canvas.window(px, py, 0.2)
            ring = disc(x[rows, columns] - px, y[rows, columns] - py, 0.05)
            pad.paint(cover(ring, canvas.pixel), (0.58, 0.54, 0.38))
            pad.paint(cover(ring + 0.03, canvas.pixel), (0.24, 0.24, 0.22))
    hurt = harm.integer(len(_PARTS)) if kind in {"missing_part", "shifted_part"} else -1
    jitter = draw.lattice(len(_PARTS), 3)
    for number, (cx, cy, width, height, tone, ends) in enumerate(_PARTS):
        shade = 1.0 + 0.12 * float(jitter[number, 2])
        px = x - cx - 0.010 * float(jitter[number, 0])
        py = y - cy - 0.010 * float(jitter[number, 1])
        # what is soldered under the part, seen when it is missing
        for side in (-1.0, 1.0):
            qx = px - side * width * (1.0 if width > height else 0.0)
            qy = py - side * height * (0.0 if width > height else 1.0)
            canvas.paint(cover(box(qx, qy, 0.06, 0.06, 0.02), canvas.pixel), (0.54, 0.54, 0.50))
        if number == hurt and kind == "missing_part":
            residue = cover(box(px, py, width, height, 0.02), canvas.pixel)
            spots = smooth(-0.1, 0.3, canvas.noise(harm, 34))
            canvas.paint(0.75 * residue * spots, (0.86, 0.86, 0.82))
            continue
        if number == hurt:
            px, py = rotate(px, py, harm.sign() * harm.uniform(0.035, 0.09))
            px, py = px - harm.uniform(-0.05, 0.05), py - harm.uniform(-0.05, 0.05)
        round_part = not ends
        shape = disc(px, py, width) if round_part else box(px, py, width, height, 0.015)
        canvas.shade(1.0 - 0.25 * smooth(0.05, 0.0, shape))
        light = shade * (1.05 - 0.8 * (px + py))
        alpha = cover(shape, canvas.pixel)
        canvas.paint(alpha, np.array(tone)[:, None, None] * light)
        if round_part:
            cross = np.minimum(np.abs(px), np.abs(py)) - 0.012
            canvas.paint(cover(np.maximum(cross, shape + 0.04), canvas.pixel), (0.44, 0.45, 0.47))
        else:
            long = np.abs(px) - width if width > height else np.abs(py) - height
            canvas.paint(alpha * cover(-0.045 - long, canvas.pixel), (0.58, 0.58, 0.57))
    cx, cy = x - 0.22, y - 0.22
    pin = np.abs(cy * 9.0 - np.floor(cy * 9.0) - 0.5) / 9.0 - 0.028
    pins = np.maximum(pin, box(cx, cy, 0.36, 0.24))
    if kind == "missing_pin":
        row = np.floor(cy * 9.0)
        first = harm.integer(4) - 2
        gone = (row >= first) & (row < first + 2) & (cx * harm.sign() > 0)
        gone = gone & (box(cx, cy, 0.36, 0.24) < 0.0)
        torn = smooth(-0.2, 0.3, canvas.noise(harm, 44))
        pins = np.where(gone, 9.0, pins)
        canvas.paint(gone * (0.4 + 0.6 * torn), (0.80, 0.68, 0.40))
    canvas.paint(cover(pins, canvas.pixel), (0.58, 0.58, 0.57))
    chip = box(cx, cy, 0.26, 0.28, 0.02)
    canvas.shade(1.0 - 0.35 * smooth(0.04, 0.0, chip))
    canvas.paint(cover(chip, canvas.pixel), np.array((0.26, 0.26, 0.28))[:, None, None] * weave)
    canvas.paint(cover(disc(cx + 0.17, cy + 0.19, 0.035), canvas.pixel), (0.35, 0.35, 0.36))
    for line in range(3):
        text = box(cx - 0.02, cy + 0.06 - 0.09 * line, 0.15 - 0.03 * line, 0.014)
        canvas.paint(0.35 * cover(text, canvas.pixel), (0.75, 0.75, 0.75))
    return canvas, body


def flask_top(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a glass flask from above, amber or green, lit from below."""
    glass = draw.choice(((0.50, 0.36, 0.24), (0.32, 0.44, 0.34)))
    canvas = _bench(size, draw, (0.52, 0.52, 0.51), 0.03)
    x, y = _place(canvas, draw, 0.05, 0.5)
    radius = np.sqrt(x * x + y * y)
    angle = turns(x, y)
    ripple = noise(draw.lattice(8, 48), 48.0 * angle, 10.0 * radius)
    body = cover(radius - 0.86, canvas.pixel)
    tone = np.array(glass)[:, None, None]
    light = 0.90 + 0.08 * cosine(angle - draw.uniform()) * smooth(0.4, 0.86, radius)
    canvas.paint(body, tone * (light + 0.09 * ripple))
    for where, width, gain in ((0.80, 0.06, 1.2), (0.66, 0.07, 0.85), (0.53, 0.06, 1.2)):
        drawn = draw.uniform(0.75, 1.0)
        ring = smooth(width, 0.0, np.abs(radius - where - 0.008 * ripple))
        canvas.shade(1.0 + (gain * drawn - 1.0) * 0.8 * ring)
    throat = cover(radius - 0.44, canvas.pixel)
    depth = 0.62 + 0.25 * smooth(0.44, 0.10, radius)
    canvas.paint(throat, tone * depth + 0.10 * smooth(0.3, 0.0, radius))
    if kind == "chipped_rim":
        a = np.array(harm.uniform())
        edge = harm.choice((0.86, 0.50))
        px, py = x - edge * float(cosine(a)), y - edge * float(sine(a))
        rough = 0.05 * canvas.noise(harm, 18)
        chip = disc(px, py, harm.uniform(0.09, 0.20)) + rough
        new = np.array((0.85, 0.84, 0.80) if edge > 0.6 else mix(glass, (0.9, 0.9, 0.8), 0.35))
        alpha = cover(chip, canvas.pixel) * body
        canvas.paint(alpha, new[:, None, None] * (1.0 + 0.25 * canvas.noise(harm, 40)))
    return canvas, body


def gear(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a spur gear turned by any angle, bright steel or dark cast iron."""
    metal = draw.choice(((0.66, 0.67, 0.69), (0.54, 0.55, 0.57)))
    canvas = _bench(size, draw, (0.47, 0.48, 0.50), 0.04)
    x, y = _place(canvas, draw, 0.05, 0.5)
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
    bore = np.maximum(0.15 - radius, 0.0)
    key = box(x - 0.16, y, 0.05, 0.045)
    holes = np.full(x.shape, 9.0)
    for number in range(5):
        a = np.array(number / 5.0)
        holes = np.minimum(
            holes, disc(x - 0.42 * float(cosine(a)), y - 0.42 * float(sine(a)), 0.105)
        )
    del bore
    empty = np.minimum(np.minimum(holes, radius - 0.15), key)
    solid = np.maximum(outline, -empty)
    _cast_shadow(canvas, outline, 0.08, 0.2)
    body = cover(solid, canvas.pixel)
    # turned metal glints in two opposite sectors fixed to the lamp, not to the part
    lamp = turns(canvas.x, canvas.y)
    glint = cosine(2.0 * (lamp - draw.uniform()))
    lathe = noise(draw.lattice(64, 8), 8.0 * angle, 42.0 * radius)
    if kind in {"missing_tooth", "worn_tooth"}:
        fracture = gone * smooth(0.58, 0.64, radius) * (0.7 + 1.1 * canvas.noise(harm, 44))
    else:
        fracture = np.zeros(x.shape)
    light = 1.0 + 0.45 * fracture + 0.07 * glint + 0.06 * lathe - 0.15 * smooth(-0.05, 0.0, solid)
    groove = smooth(0.02, 0.0, np.abs(radius - 0.62)) + smooth(0.02, 0.0, np.abs(radius - 0.24))
    canvas.paint(body, np.array(metal)[:, None, None] * light * (1.0 - 0.3 * groove))
    return canvas, body


def hazel_shell(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a hazelnut in its shell at any angle: striped flanks and a pale scar."""
    del kind, harm
    tone = draw.choice(((0.55, 0.34, 0.18), (0.63, 0.44, 0.26)))
    canvas = _bench(size, draw, (0.30, 0.30, 0.32), 0.05)
    u, v = _place(canvas, draw, 0.06, 0.5)
    u = u * draw.uniform(0.95, 1.05)
    taper = 1.0 + 0.18 * u
    q = v * taper / 0.70
    p = u / 0.78
    radius = np.sqrt(p * p + q * q)
    body = cover((radius - 1.0) * 0.72, canvas.pixel)
    _cast_shadow(canvas, (radius - 1.0) * 0.72, 0.12, 0.25)
    dome = np.sqrt(np.maximum(1.0 - radius * radius, 0.0))
    bow = np.sqrt(np.maximum(1.0 - p * p, 0.02))
    meridian = q / bow
    stripes = noise(draw.lattice(32, 32), 1.6 * p, 9.0 * meridian + 0.6 * canvas.noise(draw, 6))
    fine = noise(draw.lattice(64, 64), 4.0 * p, 24.0 * meridian)
    scar = smooth(0.30, 0.52, p + 0.10 * q * q + 0.04 * canvas.noise(draw, 14))
    colour = np.array(tone)[:, None, None] * (1.0 + 0.14 * stripes + 0.07 * fine)
    pale = np.array((0.70, 0.58, 0.42))[:, None, None]
    colour = colour + scar * (pale * (1.0 + 0.16 * canvas.noise(draw, 44)) - colour)
    light = 0.66 + 0.40 * dome - 0.12 * (canvas.x + canvas.y)
    canvas.paint(body, colour * light)
    return canvas, body


def hex_nut(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a hexagonal nut at any angle, zinc or bronze, plain or flanged."""
    metal = draw.choice(((0.62, 0.64, 0.66), (0.62, 0.55, 0.42)))
    flanged = draw.integer(2)
    canvas = _bench(size, draw, (0.46, 0.46, 0.48), 0.04)
    x, y = _place(canvas, draw, 0.06, 0.5)
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
    _cast_shadow(canvas, whole, 0.08, 0.2)
    body = cover(solid, canvas.pixel)
    lamp = cosine(turns(canvas.x, canvas.y) - draw.uniform())
    lathe = noise(draw.lattice(64, 8), 8.0 * angle, 36.0 * radius)
    rough = canvas.noise(draw, 40)
    tone = np.array(metal)[:, None, None]
    if flanged:
        canvas.paint(body, tone * (0.86 + 0.05 * lamp + 0.05 * rough))
        canvas.shade(1.0 - 0.3 * smooth(0.05, 0.0, outline) * body)
    light = 1.0 + 0.06 * lamp + 0.06 * lathe + 0.03 * rough
    chamfer = smooth(0.60, 0.68, radius)
    light = light - chamfer * (0.14 - 0.08 * lamp)
    top = np.maximum(outline, 0.33 - radius)
    canvas.paint(cover(top, canvas.pixel), tone * light)
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
        canvas.paint(flat * smooth(width, width - 0.02, sector), tone * (0.85 + 0.5 * canvas.noise(harm, 44)))
    return canvas, body


def zip_fastener(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a closed zip: two woven tapes and a column of interlocking teeth."""
    tape = draw.choice(((0.34, 0.35, 0.40), (0.46, 0.34, 0.35), (0.41, 0.43, 0.38)))
    canvas = Canvas.blank(size, tape)
    x, y = _place(canvas, draw, 0.05, 0.006)
    pitch = 0.20
    y = y + draw.uniform(0.0, pitch)
    fine = 1.0 + 0.16 * cosine(x * 13.0) * cosine(y * 13.0) + 0.08 * canvas.noise(draw, 40)
    rib = 1.0 - 0.18 * smooth(0.03, 0.0, np.abs(np.abs(x) - 0.62))
    canvas.shade(fine * rib * (1.0 + 0.08 * canvas.noise(draw, 4)))
    canvas.shade(1.0 - 0.2 * smooth(0.34, 0.26, np.abs(x)))
    metal = draw.choice(((0.56, 0.56, 0.57), (0.56, 0.52, 0.43)))
    hurt_side = harm.sign() if kind in {"missing_tooth", "bent_tooth"} else 0.0
    hurt_row = harm.integer(7) - 3
    gloss = draw.lattice(2, 32)
    for side in (-1.0, 1.0):
        local = y / pitch + (0.25 if side > 0 else -0.25)
        row = np.floor(local)
        fy = (local - row - 0.5) * pitch
        fx = x - side * 0.10
        present = np.ones(x.shape, dtype=bool)
        if side == hurt_side:
            here = row == hurt_row
            if kind == "missing_tooth":
                present = ~here
                torn = here & (box(fx - side * 0.03, fy, 0.15, 0.06) < 0.0)
                frayed = smooth(-0.1, 0.3, canvas.noise(harm, 44))
                canvas.paint(torn * frayed * 0.8, (0.82, 0.80, 0.76))
            else:
                bent_x, bent_y = rotate(fx, fy, harm.sign() * harm.uniform(0.05, 0.12))
                fx = np.where(here, bent_x - side * harm.uniform(0.02, 0.08), fx)
                fy = np.where(here, bent_y, fy)
        # a tooth: a stem clamped on the tape and a head that reaches over the middle
        stem = box(fx - side * 0.06, fy, 0.13, 0.036, 0.01)
        head = disc(fx + side * 0.07, fy, 0.046)
        shape = np.minimum(stem, head)
        shine = 1.0 + 0.12 * gloss[0 if side > 0 else 1][row.astype(np.int64) % 32]
        light = shine * (1.08 - 6.0 * np.abs(fy) - 0.6 * fy / 0.05 * 0.2)
        canvas.shade(1.0 - present * 0.2 * smooth(0.03, 0.0, shape))
        canvas.paint(present * cover(shape, canvas.pixel), np.array(metal)[:, None, None] * light)
    return canvas, np.ones(x.shape)
