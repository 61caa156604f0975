"""Six products of the procedural data set.

Every function draws one image and returns it with the share of each pixel that belongs
to the product. ``draw`` decides the normal variation; ``kind`` and ``harm`` a
structural defect, whose random numbers come from ``harm`` alone, so that the sound twin
of a defective image is the same scene.
"""

from __future__ import annotations

import numpy as np

from avalanche_ad.datasets._synthetic.bench import bench, cast_shadow, place
from avalanche_ad.datasets._synthetic.drawing import (
    Canvas,
    Colour,
    Draw,
    Scene,
    around,
    box,
    cosine,
    cover,
    disc,
    mix,
    noise,
    plane,
    rotate,
    segment,
    sine,
    smooth,
    turns,
)
from avalanche_ad.datasets.sample import GOOD

__all__ = [
    "brush",
    "cable_section",
    "capsule_print",
    "flask_top",
    "hazel_shell",
    "zip_fastener",
]


def brush(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a brush head from above: tufts of bristles in rows, three colourings."""
    outer = draw.choice(((0.40, 0.55, 0.74), (0.74, 0.46, 0.46), (0.42, 0.64, 0.52)))
    canvas = bench(size, draw, (0.42, 0.43, 0.45), 0.04)
    x, y = place(canvas, draw, 0.05, 0.012)
    handle = np.minimum(
        box(x, y + 0.12, 0.52, 0.74, 0.36), box(x, y - 0.8, 0.16, 0.5, 0.05)
    )
    cast_shadow(canvas, handle, 0.08, 0.4)
    body = cover(handle, canvas.pixel)
    canvas.paint(
        body,
        plane((0.74, 0.75, 0.76)) * (1.0 - 0.2 * smooth(-0.2, 0.0, handle)),
    )
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
        part = around(x, y, cx, cy, radius * stretch + 0.08)
        dx, dy = (x[part] - cx) / stretch, y[part] - cy
        view = canvas.crop(part)
        distance = disc(dx, dy, radius)
        view.shade(1.0 - 0.25 * smooth(0.05, 0.0, distance))
        light = 1.0 + 0.22 * grain[part] + 0.06 * float(tint[number]) - 1.0 * (dx + dy)
        if number == lost and kind == "missing_tuft":
            light = 0.8 + 4.0 * (dx + dy)
        if number == lost and kind == "splayed_tuft":
            light = light + 0.9 * canvas.noise(harm, 46)[part]
        view.paint(cover(distance, canvas.pixel), plane(tone) * light)
    return canvas, body


def cable_section(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw the cut end of a cable: three insulated cores of copper strands."""
    canvas = bench(size, draw, (0.36, 0.37, 0.38))
    x, y = place(canvas, draw, 0.04, 0.04)
    sheath = disc(x, y, 0.88)
    body = cover(sheath, canvas.pixel)
    cast_shadow(canvas, sheath, 0.12, 0.25)
    grey = draw.uniform(0.52, 0.62)
    grain = 1.0 + 0.06 * canvas.noise(draw, 30)
    canvas.paint(body, grey * grain[None] * np.ones((3, 1, 1)))
    canvas.paint(cover(disc(x, y, 0.76), canvas.pixel), (0.28, 0.28, 0.29))
    filler = canvas.noise(draw, 22)
    canvas.paint(
        cover(disc(x, y, 0.76), canvas.pixel) * (0.25 + 0.25 * filler),
        (0.42, 0.40, 0.36),
    )
    tones: list[Colour] = [(0.46, 0.34, 0.26), (0.34, 0.44, 0.62), (0.50, 0.57, 0.32)]
    hurt = harm.integer(3) if kind != GOOD else -1
    if kind == "wrong_core":
        tones[hurt] = harm.choice(
            ((0.68, 0.26, 0.24), (0.16, 0.16, 0.18), (0.74, 0.60, 0.20))
        )
    for number, tone in enumerate(tones):
        angle = np.array(number / 3.0 + 0.25 + draw.uniform(-0.012, 0.012))
        cx, cy = 0.41 * float(cosine(angle)), 0.41 * float(sine(angle))
        part = around(x, y, cx, cy, 0.45)
        view, rough = canvas.crop(part), filler[part]
        dx, dy = x[part] - cx, y[part] - cy
        radius = draw.uniform(0.315, 0.335)
        distance = disc(dx, dy, radius)
        light = 1.10 - 0.35 * smooth(-0.10, 0.0, distance) - 0.25 * (dx + dy)
        view.paint(
            cover(distance, canvas.pixel),
            plane(tone) * light * grain[part],
        )
        if kind == "cut_insulation" and number == hurt:
            toward = np.array(harm.uniform())
            edge = harm.uniform(0.24, 0.29)
            px = dx - edge * float(cosine(toward))
            py = dy - edge * float(sine(toward))
            notch = disc(px, py, harm.uniform(0.08, 0.14))
            view.paint(cover(notch + 0.03 * rough, canvas.pixel), (0.12, 0.11, 0.10))
        bore = disc(dx, dy, 0.215)
        view.paint(cover(bore, canvas.pixel), (0.32, 0.23, 0.17))
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
            gap = harm.uniform(0.07, 0.12)
            away = (home_a - ga) * (home_a - ga) + (home_b - gb) * (home_b - gb)
            present = present & (away > gap * gap)
        copper = plane((0.70, 0.50, 0.36))
        strand = 1.10 - 4.0 * best
        view.paint(present * cover(best - 0.040, canvas.pixel), copper * strand)
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
    canvas = bench(size, draw, (0.66, 0.66, 0.64))
    u, v = place(canvas, draw, 0.06, 0.025)
    u, v = 0.92 * u, 0.92 * v
    pinch = np.zeros(u.shape)
    if kind == "squeezed":
        middle = harm.uniform(-0.55, 0.55)
        width = harm.uniform(0.14, 0.26)
        side = harm.sign()
        profile = 1.0 - smooth(0.0, width, np.abs(u - middle))
        pinch = harm.uniform(0.07, 0.15) * profile * smooth(-0.1, 0.2, side * v)
    body_d = segment(u, v, (-0.50, 0.0), (0.50, 0.0)) - 0.325 + pinch
    cap_d = np.maximum(
        segment(u, v, (-0.50, 0.0), (0.50, 0.0)) - 0.345 + pinch, u + 0.05
    )
    whole = np.minimum(body_d, cap_d)
    cast_shadow(canvas, whole, 0.14, 0.20)
    body = cover(whole, canvas.pixel)
    depth = np.clip(-whole / 0.33, 0.0, 1.0)
    light = 0.84 + 0.26 * depth * (2.0 - depth) - 0.25 * v
    canvas.paint(cover(body_d, canvas.pixel), plane(right) * light)
    canvas.paint(cover(cap_d, canvas.pixel), plane(left) * light)
    canvas.paint(
        body * smooth(0.035, 0.0, np.abs(u + 0.05)) * 0.4,
        mix(left, (0.0, 0.0, 0.0), 0.6),
    )
    if kind == "squeezed":
        crease = smooth(0.03, 0.10, pinch) * body
        canvas.shade(1.0 - crease * (0.30 + 0.35 * canvas.noise(harm, 30)))
    ink = 0.80 * _ink(right)
    shift_u, shift_v, faint, lost = 0.0, 0.0, 1.0, -1
    if kind == "misprint":
        fault = harm.integer(3)
        if fault == 0:
            shift_u, shift_v = (
                harm.uniform(0.03, 0.09),
                harm.sign() * harm.uniform(0.05, 0.12),
            )
        elif fault == 1:
            lost = harm.integer(3)
        else:
            faint = harm.uniform(0.0, 0.45)
        blot = disc(u - harm.uniform(0.15, 0.55), v - harm.uniform(-0.15, 0.15), 0.0)
        wet = smooth(
            harm.uniform(0.12, 0.2), 0.05, blot + 0.06 * canvas.noise(harm, 40)
        )
        canvas.paint(0.6 * wet * body, (ink, ink, ink))
    glyphs = ("5", "0", "8")
    for number, glyph in enumerate(glyphs):
        if number == lost:
            continue
        left_edge, top_edge = 0.16 + 0.17 * number + shift_u, shift_v
        part = around(u, v, left_edge, top_edge, 0.16)
        gu, gv = u[part] - left_edge, v[part] - top_edge
        strokes = np.full(gu.shape, 9.0)
        for bar in _SEGMENTS[glyph]:
            strokes = np.minimum(strokes, segment(gu, gv, *bar))
        canvas.crop(part).paint(
            faint * 0.6 * cover(strokes - 0.017, canvas.pixel), (ink, ink, ink)
        )
    glint = smooth(0.045, 0.0, np.abs(v + 0.17)) * smooth(0.60, 0.45, np.abs(u))
    canvas.paint(0.22 * glint * body, (1.0, 1.0, 1.0))
    return canvas, body


def _ink(colour: Colour) -> float:
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


def flask_top(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a glass flask from above, amber or green, lit from below."""
    glass = draw.choice(((0.50, 0.36, 0.24), (0.32, 0.44, 0.34)))
    canvas = bench(size, draw, (0.52, 0.52, 0.51), 0.03)
    x, y = place(canvas, draw, 0.05, 0.5)
    radius = np.sqrt(x * x + y * y)
    angle = turns(x, y)
    ripple = noise(draw.lattice(8, 48), 48.0 * angle, 10.0 * radius)
    body = cover(radius - 0.86, canvas.pixel)
    tone = plane(glass)
    light = 0.90 + 0.08 * cosine(angle - draw.uniform()) * smooth(0.4, 0.86, radius)
    canvas.paint(body, tone * (light + 0.09 * ripple + 0.16 * cosine(radius * 15.0)))
    for where, width, gain in (
        (0.80, 0.06, 1.2),
        (0.66, 0.07, 0.85),
        (0.53, 0.06, 1.2),
    ):
        drawn = draw.uniform(0.75, 1.0)
        ring = smooth(width, 0.0, np.abs(radius - where - 0.008 * ripple))
        canvas.shade(1.0 + (gain * drawn - 1.0) * 0.8 * ring)
    throat = cover(radius - 0.44, canvas.pixel)
    depth = 0.19 * cosine(radius * 15.0) + 0.62 + 0.25 * smooth(0.44, 0.10, radius)
    canvas.paint(throat, tone * depth + 0.10 * smooth(0.3, 0.0, radius))
    if kind == "chipped_rim":
        a = np.array(harm.uniform())
        edge = harm.choice((0.86, 0.50))
        px, py = x - edge * float(cosine(a)), y - edge * float(sine(a))
        rough = 0.05 * canvas.noise(harm, 18)
        chip = disc(px, py, harm.uniform(0.09, 0.20)) + rough
        new = np.array(
            (0.85, 0.84, 0.80) if edge > 0.6 else mix(glass, (0.9, 0.9, 0.8), 0.35)
        )
        alpha = cover(chip, canvas.pixel) * body
        canvas.paint(alpha, new[:, None, None] * (1.0 + 0.25 * canvas.noise(harm, 40)))
    return canvas, body


def hazel_shell(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a hazelnut in its shell at any angle: striped flanks and a pale scar."""
    del kind, harm
    tone = draw.choice(((0.55, 0.34, 0.18), (0.63, 0.44, 0.26)))
    canvas = bench(size, draw, (0.30, 0.30, 0.32), 0.05)
    u, v = place(canvas, draw, 0.06, 0.5)
    u = u * draw.uniform(0.95, 1.05)
    taper = 1.0 + 0.18 * u
    q = v * taper / 0.70
    p = u / 0.78
    radius = np.sqrt(p * p + q * q)
    body = cover((radius - 1.0) * 0.72, canvas.pixel)
    cast_shadow(canvas, (radius - 1.0) * 0.72, 0.12, 0.25)
    dome = np.sqrt(np.maximum(1.0 - radius * radius, 0.0))
    bow = np.sqrt(np.maximum(1.0 - p * p, 0.02))
    meridian = q / bow
    stripes = noise(
        draw.lattice(32, 32), 1.6 * p, 9.0 * meridian + 0.6 * canvas.noise(draw, 6)
    )
    fine = noise(draw.lattice(64, 64), 4.0 * p, 24.0 * meridian)
    scar = smooth(0.30, 0.52, p + 0.10 * q * q + 0.04 * canvas.noise(draw, 14))
    colour = plane(tone) * (
        1.0 + 0.14 * stripes + 0.13 * fine + 0.10 * cosine(5.0 * meridian)
    )
    pale = plane((0.70, 0.58, 0.42))
    colour = colour + scar * (pale * (1.0 + 0.16 * canvas.noise(draw, 44)) - colour)
    light = 0.66 + 0.40 * dome - 0.12 * (canvas.x + canvas.y)
    canvas.paint(body, colour * light)
    return canvas, body


def zip_fastener(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a closed zip: two woven tapes and a column of interlocking teeth."""
    tape = draw.choice(((0.34, 0.35, 0.40), (0.46, 0.34, 0.35), (0.41, 0.43, 0.38)))
    canvas = Canvas.blank(size, tape)
    x, y = place(canvas, draw, 0.05, 0.006)
    pitch = 0.20
    y = y + draw.uniform(0.0, pitch)
    fine = (
        1.0 + 0.16 * cosine(x * 13.0) * cosine(y * 13.0) + 0.08 * canvas.noise(draw, 40)
    )
    rib = 1.0 - 0.18 * smooth(0.03, 0.0, np.abs(np.abs(x) - 0.62))
    canvas.shade(fine * rib * (1.0 + 0.08 * canvas.noise(draw, 4)))
    canvas.shade(1.0 - 0.2 * smooth(0.34, 0.26, np.abs(x)))
    metal = draw.choice(((0.56, 0.56, 0.57), (0.56, 0.52, 0.43)))
    hurt_side = harm.sign() if kind in {"missing_tooth", "bent_tooth"} else 0.0
    hurt_row = harm.integer(7) - 3
    gloss = draw.lattice(2, 32)
    frayed = np.zeros(x.shape)
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
                torn = here & (box(fx - side * 0.05, fy, 0.20, 0.09) < 0.0)
                frayed = torn * smooth(-0.1, 0.3, canvas.noise(harm, 36))
            else:
                bent_x, bent_y = rotate(fx, fy, harm.sign() * harm.uniform(0.05, 0.12))
                fx = np.where(here, bent_x - side * harm.uniform(0.02, 0.08), fx)
                fy = np.where(here, bent_y, fy)
        # a tooth: a stem clamped on the tape and a head that reaches over the middle
        stem = box(fx - side * 0.06, fy, 0.13, 0.036, 0.01)
        head = disc(fx + side * 0.07, fy, 0.046)
        shape = np.minimum(stem, head)
        shine = 1.0 + 0.12 * gloss[0 if side > 0 else 1][row.astype(np.int64) % 32]
        light = shine * (1.08 - 6.0 * np.abs(fy) - 2.4 * fy)
        canvas.shade(1.0 - present * 0.2 * smooth(0.03, 0.0, shape))
        canvas.paint(present * cover(shape, canvas.pixel), plane(metal) * light)
    canvas.paint(0.8 * frayed, (0.86, 0.85, 0.82))
    return canvas, np.ones(x.shape)
