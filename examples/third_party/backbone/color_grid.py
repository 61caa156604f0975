"""A backbone of another package: the colours of every cell of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from avalanche_ad.features import Backbone


class ColorGrid(Backbone):
    """Give mean and standard deviation of the three colours of every cell.

    :param stride: side of a cell in pixels.
    """

    name = "color_grid"

    def __init__(self, stride: int = 8) -> None:
        super().__init__()
        self.stride = stride
        self.freeze()

    def describe(self) -> Mapping[str, Any]:
        """Return what decides the features; ``version`` goes up when they change."""
        return {"kind": self.name, "version": 1, "stride": self.stride}

    def extract(self, images: Tensor) -> list[Tensor]:
        """Return one level (N, H / stride, W / stride, 6) of images (N, 3, H, W)."""
        mean = avg_pool2d(images, self.stride)
        spread = (avg_pool2d(images**2, self.stride) - mean**2).clamp(min=0).sqrt()
        return [torch.cat([mean, spread], dim=1).permute(0, 2, 3, 1)]
