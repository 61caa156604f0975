"""The code of positions that flows are conditioned on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["position_code", "position_codes"]


def position_code(channels: int, height: int, width: int) -> Tensor:
    """Return the two-dimensional sinusoidal position code.

    The first half of the channels encodes the column, the second half the row, each
    as pairs (sin, cos) of geometrically falling frequencies.

    :param channels: number of channels, a multiple of 4.
    :param height: rows.
    :param width: columns.
    :return: (channels, height, width), values in [-1, 1].
    :raises ValueError: when ``channels`` is not a positive multiple of 4.

    Source: Z. Wang and J.-C. Liu, "Translating math formula images to LaTeX
    sequences", 2021; used by HGAD (Yao et al., ECCV 2024).
    """
    if channels <= 0 or channels % 4:
        raise ValueError(
            f"expected condition channels as a positive multiple of 4, got {channels}"
        )
    half = channels // 2
    frequency = torch.exp(torch.arange(0.0, half, 2) * (-math.log(1e4) / half))
    code = torch.zeros(channels, height, width)
    column = torch.arange(float(width)) * frequency[:, None]
    row = torch.arange(float(height)) * frequency[:, None]
    code[0:half:2] = column.sin()[:, None, :]
    code[1:half:2] = column.cos()[:, None, :]
    code[half::2] = row.sin()[:, :, None]
    code[half + 1 :: 2] = row.cos()[:, :, None]
    return code


def position_codes(channels: int, height: int, width: int) -> Tensor:
    """Return :func:`position_code` with a row a position, (height · width, channels).

    :param channels: 0 for no code.
    """
    if not channels:
        return torch.zeros(height * width, 0)
    return position_code(channels, height, width).flatten(1).T.contiguous()
