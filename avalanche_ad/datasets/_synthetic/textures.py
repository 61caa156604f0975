"""The five surfaces of the procedural data set.

Every function draws one image and returns it with the share of each pixel that belongs
to the product (all of it, here). ``draw`` decides the normal variation; ``kind`` and
``harm`` a structural defect, whose random numbers come from ``harm`` alone, so that the
sound twin of a defective image is the same scene.
"""

from __future__ import annotations

import numpy as np

from avalanche_ad.datasets._synthetic.drawing import (
    Canvas,
    Draw,
    Scene,
    cells,
    cosine,
    cover,
    disc,
    mix,
    noise,
    plane,
    rotate,
    smooth,
)

__all__ = ["carpet_weave", "leather_hide", "terrazzo", "tile_grid", "wood_plank"]


def _whole(canvas: Canvas) -> Scene:
    return canvas, np.ones(canvas.x.shape)


def carpet_weave(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a plain weave in one of three colourings."""
    canvas = Canvas.blank(size)
    warp, weft = draw.choice(
        (
            ((0.36, 0.40, 0.47), (0.52, 0.55, 0.60)),
            ((0.62, 0.53, 0.40), (0.46, 0.37, 0.27)),
            ((0.45, 0.27, 0.25), (0.55, 0.48, 0.42)),
        )
    )
    threads = draw.uniform(8.0, 8.8)
    u, v = rotate(canvas.x, canvas.y, draw.uniform(-0.012, 0.012))
    u = u * threads + draw.uniform(0.0, 8.0) + 0.18 * canvas.noise(draw, 4)
    v = v * threads + draw.uniform(0.0, 8.0) + 0.18 * canvas.noise(draw, 4)
    tints = draw.lattice(2, 64)
    iu, iv = np.floor(u), np.floor(v)
    along, across = u - iu - 0.5, v - iv - 0.5
    over = (iu + iv) % 2 == 0
    tint_u = tints[0][iu.astype(np.int64) % 64]
    tint_v = tints[1][iv.astype(np.int64) % 64]
    strength_u = np.ones(tint_u.shape)
    strength_v = np.ones(tint_v.shape)
    if kind == "pulled_thread":
        column = round(harm.uniform(-0.6, 0.6) * threads + float(u.flat[u.size // 2]))
        start, length = harm.uniform(-0.7, 0.1), harm.uniform(0.35, 0.8)
        gone = (iu == column) & (canvas.y > start) & (canvas.y < start + length)
        strength_u = np.where(gone, harm.uniform(0.25, 0.6), strength_u)
    # a thread is a cylinder that dives under its neighbours at the cell's border
    bump_u = strength_u * (1.0 - 2.6 * along * along) * (1.0 - 1.5 * across * across)
    bump_v = strength_v * (1.0 - 2.6 * across * across) * (1.0 - 1.5 * along * along)
    twist = cosine(
        np.where(over, 3.0 * across + 2.0 * along, 3.0 * along + 2.0 * across)
    )
    shade = np.where(over, bump_u, bump_v) * (1.0 + 0.07 * twist)
    canvas.paint(over * 1.0, warp)
    canvas.paint(1.0 - over, weft)
    canvas.shade(shade * (1.0 + 0.10 * np.where(over, tint_u, tint_v)))
    canvas.shade(1.0 + 0.10 * canvas.noise(draw, 48) + 0.06 * canvas.noise(draw, 5))
    return _whole(canvas)


def leather_hide(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw a pebbled hide, brown, black or tan, the grain finer or coarser."""
    del kind, harm
    base = draw.choice(((0.44, 0.31, 0.23), (0.33, 0.32, 0.33), (0.56, 0.44, 0.33)))
    canvas = Canvas.blank(size, base)
    scale = draw.choice((5.5, 7.0)) * draw.uniform(0.93, 1.07)
    u, v = rotate(canvas.x, canvas.y, draw.uniform())
    u = u * scale + 0.5 * canvas.noise(draw, 5) + draw.uniform(0.0, 9.0)
    v = v * scale * 1.15 + 0.5 * canvas.noise(draw, 5) + draw.uniform(0.0, 9.0)
    first, second, number = cells(0.38 * draw.lattice(24, 24, 2), u, v)
    edge = second - first
    tint = draw.lattice(24 * 24)[number]
    valley = 1.0 - smooth(0.02, 0.30, edge)
    canvas.shade(1.06 - 0.36 * valley - 0.20 * first + 0.06 * tint)
    canvas.shade(1.0 + 0.07 * canvas.noise(draw, 40) + 0.10 * canvas.noise(draw, 3))
    glint = smooth(0.35, 0.0, first + 0.4 * (v - np.floor(v)))
    canvas.paint(0.10 * glint, (0.95, 0.93, 0.90))
    return _whole(canvas)


def terrazzo(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw stone chips of two sizes in a polished binder, two mixtures."""
    del kind, harm
    binder, chips = draw.choice(
        (
            (
                (0.70, 0.68, 0.65),
                ((0.62, 0.54, 0.48), (0.56, 0.57, 0.58), (0.80, 0.78, 0.75)),
            ),
            (
                (0.54, 0.56, 0.58),
                ((0.68, 0.68, 0.66), (0.42, 0.44, 0.46), (0.58, 0.52, 0.47)),
            ),
        )
    )
    canvas = Canvas.blank(size, binder)
    canvas.shade(1.0 + 0.10 * canvas.noise(draw, 34) + 0.14 * canvas.noise(draw, 60))
    palette = np.array(chips).T
    for scale, radius in ((7.0, 0.24), (3.4, 0.36)):
        u, v = rotate(canvas.x, canvas.y, draw.uniform())
        u = u * scale + draw.uniform(0.0, 9.0) + 0.12 * canvas.noise(draw, 4 * scale)
        v = v * scale + draw.uniform(0.0, 9.0) + 0.12 * canvas.noise(draw, 4 * scale)
        first, second, number = cells(0.36 * draw.lattice(16, 16, 2), u, v)
        kinds = draw.lattice(3, 256)
        present = kinds[0][number] > -0.45
        reach = radius * (1.0 + 0.35 * kinds[1][number])
        inside = np.maximum(first - reach, 0.10 - (second - first)) / scale
        colour = palette[:, np.floor(1.5 + 1.5 * kinds[2]).astype(np.int64)[number]]
        veined = 1.0 + 0.16 * noise(draw.lattice(32, 32), 4.0 * u, 4.0 * v)
        canvas.paint(present * cover(inside, canvas.pixel), colour * veined)
    return _whole(canvas)


def tile_grid(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw glazed tiles with grout between, in stacked or running bond."""
    glaze, grout = draw.choice(
        (
            ((0.50, 0.60, 0.64), (0.80, 0.79, 0.76)),
            ((0.72, 0.66, 0.56), (0.50, 0.48, 0.45)),
            ((0.60, 0.40, 0.33), (0.72, 0.70, 0.67)),
        )
    )
    running = draw.integer(2)
    canvas = Canvas.blank(size, grout)
    canvas.shade(1.0 + 0.08 * canvas.noise(draw, 50))
    scale = draw.uniform(2.3, 2.6)
    u, v = rotate(canvas.x, canvas.y, draw.uniform(-0.01, 0.01))
    u, v = u * scale + draw.uniform(0.0, 8.0), v * scale + draw.uniform(0.0, 8.0)
    row = np.floor(v)
    u = u + 0.5 * running * (row % 2)
    column = np.floor(u)
    number = (row.astype(np.int64) % 8) * 8 + column.astype(np.int64) % 8
    fu, fv = u - column - 0.5, v - row - 0.5
    wobble = 0.012 * canvas.noise(draw, 24)
    tint = draw.lattice(64)
    tilt = draw.lattice(2, 64)
    missing = np.zeros(u.shape)
    if kind == "chip":
        # a corner of one tile is broken off down to the grout
        which = int(number[size // 2, int(size * harm.uniform(0.3, 0.7))])
        su, sv = harm.sign(), harm.sign()
        radius = harm.uniform(0.18, 0.42)
        reach = np.sqrt((fu - su * 0.46) ** 2 + (fv - sv * 0.46) ** 2)
        ragged = 0.10 * canvas.noise(harm, 26)
        missing = (number == which) * cover(
            (reach + ragged - radius) / scale, canvas.pixel
        )
    edge = np.maximum(np.abs(fu), np.abs(fv)) - 0.455 + wobble
    tile = cover(edge / scale, canvas.pixel) * (1.0 - missing)
    bevel = smooth(-0.10, 0.0, edge)
    light = 1.0 + 0.10 * tint[number] - 0.14 * bevel * (fu + fv)
    light = light + 0.12 * (fu * tilt[0][number] + fv * tilt[1][number])
    light = light + 0.05 * canvas.noise(draw, 10) + 0.03 * canvas.noise(draw, 44)
    canvas.paint(tile, plane(glaze) * light)
    return _whole(canvas)


def wood_plank(size: int, draw: Draw, kind: str, harm: Draw) -> Scene:
    """Draw planed wood with knots: pale and straight-grained, or dark and wavy."""
    del kind, harm
    dark = draw.integer(2)
    early, late = (
        ((0.50, 0.35, 0.24), (0.32, 0.21, 0.14))
        if dark
        else ((0.80, 0.66, 0.47), (0.66, 0.48, 0.30))
    )
    wave = 0.75 if dark else 0.22
    rings = draw.uniform(4.0, 6.0) * (0.8 if dark else 1.3)
    canvas = Canvas.blank(size, early)
    x, y = rotate(canvas.x, canvas.y, draw.uniform(-0.012, 0.012))
    drift = wave * canvas.noise(draw, 2, 3) + 0.3 * wave * canvas.noise(draw, 4, 9)
    knots = np.zeros(x.shape)
    for _ in range(1 + draw.integer(3)):
        kx, ky = draw.uniform(-1.0, 1.0), draw.uniform(-1.0, 1.0)
        far = disc(x - kx, 0.55 * (y - ky), 0.0)
        reach = draw.uniform(0.05, 0.085)
        knots = np.maximum(knots, smooth(reach, 0.3 * reach, far))
        # the grain flows around a knot
        drift = drift + 0.35 * smooth(4.0 * reach, 0.0, far)
    height = x * rings + 2.2 * drift + draw.uniform(0.0, 9.0)
    phase = height - np.floor(height)
    # early wood darkens slowly towards the ring's border, then jumps back
    ring = phase * phase * smooth(1.0, 0.86, phase)
    widths = draw.lattice(64)[np.floor(height).astype(np.int64) % 64]
    canvas.paint(np.clip(ring * (0.85 + 0.3 * widths), 0.0, 1.0), late)
    canvas.paint(0.85 * knots, mix(late, (0.10, 0.06, 0.04), 0.7))
    fibres = canvas.noise(draw, 70, 7) + 0.6 * canvas.noise(draw, 110, 12)
    pores = smooth(0.45, 0.8, canvas.noise(draw, 60, 9)) * (0.24 if dark else 0.16)
    canvas.shade(1.0 + 0.14 * fibres - pores + 0.05 * canvas.noise(draw, 3))
    canvas.paint(
        np.full(x.shape, 0.25), mix(early, (0.6, 0.5, 0.4), draw.uniform(0.0, 0.5))
    )
    return _whole(canvas)
