"""Defects painted into a minibatch, to be told from what is sound at every position.

Anomalies drawn on any image teach what defects look like without one being seen
(CutPaste: Li et al., CVPR 2021; DRAEM: Zavrtanik et al., ICCV 2021). Here they train
local features only: what is normal for a category is not learned from them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from avalanche_ad.pretraining.augmentation import Mixed

__all__ = ["KINDS", "paint_defects"]

KINDS = ("sound", "line", "spot", "foreign", "smear")
"""What a position shows; all but the first are defects."""


def paint_defects(
    images: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Mixed]:
    """Paint one defect into a share of the images.

    A *line* is thin, bent, darker or lighter; a *spot* is a ragged patch of another
    tone, coloured or not; *foreign* shows a piece of another image; *smear* is blurred.

    :param images: (N, 3, S, S), RGB around [0, 1].
    :param share: how many images get one.
    :param generator: source of every choice, on the CPU.
    :return: the images, and where which kind is: class 0 outside of the mask, the
        index in :data:`KINDS` inside.
    """
    count, size = len(images), images.shape[-1]
    kind = torch.randint(1, len(KINDS), (count,), generator=generator)
    painted = torch.rand(count, generator=generator) < share
    line, spot = _shapes(count, size, generator)
    column = (kind == 1)[:, None, None]
    mask = torch.where(column, line, spot) * painted[:, None, None]
    opacity = 0.5 + 0.5 * torch.rand(count, 1, 1, generator=generator)
    gain = 0.15 + 0.5 * torch.rand(count, 1, generator=generator)
    gain = gain * torch.where(
        torch.rand(count, 1, generator=generator) < 0.5, -1.0, 1.0
    )
    tint = 0.15 * (2 * torch.rand(count, 3, generator=generator) - 1)
    tint = tint * (torch.rand(count, 1, generator=generator) < 0.5)
    partner = torch.randperm(count, generator=generator)
    device = images.device
    toned = images + (gain + tint).to(device)[:, :, None, None]
    smeared = images
    for _ in range(3):
        smeared = avg_pool2d(smeared, 5, 1, 2, count_include_pad=False)
    which = kind.to(device)[:, None, None, None]
    fill = torch.where(which == 3, images[partner.to(device)].flip(3), toned)
    fill = torch.where(which == 4, smeared, fill)
    weight = (mask * opacity).to(device)[:, None]
    mask, kind = mask.to(device), kind.to(device)
    return torch.lerp(images, fill, weight), Mixed(torch.zeros_like(kind), kind, mask)


def _shapes(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the coverage (N, S, S) of a bent line and of a ragged patch."""

    def draw(low: float, high: float) -> Tensor:
        number = torch.rand(count, 1, 1, generator=generator)
        return low + (high - low) * number

    axis = (torch.arange(size) + 0.5) / size
    x = axis[None, None, :] - draw(0.15, 0.85)
    y = axis[None, :, None] - draw(0.15, 0.85)
    angle = draw(0.0, 2 * math.pi)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    bent = v + draw(-1.5, 1.5) * u * u
    across = bent.abs() - draw(0.008, 0.03)
    along = u.abs() - draw(0.08, 0.35)
    line = (0.5 - torch.maximum(across, along) * size).clamp(0, 1)
    ragged = torch.randn(count, 1, 6, 6, generator=generator)
    ragged = interpolate(ragged, (size, size), mode="bicubic")[:, 0]
    stretch = draw(1.0, 2.2)
    radius = draw(0.04, 0.16) * (1 + 0.35 * ragged)
    distance = (u / stretch).square() + (v * stretch).square()
    soft = draw(1.0, 4.0)
    spot = (0.5 - (distance.sqrt() - radius) * size / soft).clamp(0, 1)
    return line, spot
