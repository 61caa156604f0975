"""An analytic bank of filters: features without weights, download or training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from avalanche_ad.errors import RecipeError
from avalanche_ad.features.backbone import Backbone

__all__ = ["FilterBank", "gabor_pairs", "opponent_colors"]

ORIENTATIONS = 6
_OCTAVES = 4
_WAVELENGTH = 4.0
_SIGMA = 1.8
_RADIUS = 4
_FLOOR = 0.01
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def gabor_pairs(
    orientations: int, wavelength: float, sigma: float, radius: int
) -> Tensor:
    """Return quadrature pairs of oriented band-pass filters.

    g(u) = exp(-|u|²/2σ²) · cos or sin(2π u·n/λ), the even one without its mean, each
    of unit norm (Gabor 1946; Daugman 1985).

    :return: (2 · orientations, 1, 2 · radius + 1, 2 · radius + 1), even filters first.
    """
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    even, odd = [], []
    for index in range(orientations):
        angle = math.pi * index / orientations
        phase = (x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / wavelength
        cosine = window * torch.cos(phase)
        even.append(cosine - window * (cosine.sum() / window.sum()))
        odd.append(window * torch.sin(phase))
    kernels = torch.stack(even + odd)
    kernels /= kernels.flatten(1).norm(dim=1)[:, None, None]
    return kernels.unsqueeze(1).float()


def opponent_colors(images: Tensor) -> Tensor:
    """Return lightness, red against green, and yellow against blue.

    :param images: RGB (N, 3, H, W).
    :return: (N, 3, H, W).
    """
    red, green, blue = images.unbind(1)
    return torch.stack(
        [
            (red + green + blue) / 3,
            (red - green) / 2,
            (red + green) / 4 - blue / 2,
        ],
        dim=1,
    )


def _blur(images: Tensor) -> Tensor:
    """Smooth by a 5-tap binomial filter, the border reflected."""
    channels = images.shape[1]
    row = images.new_tensor(_BINOMIAL)
    images = pad(images, (2, 2, 2, 2), mode="reflect")
    images = conv2d(images, row.expand(channels, 1, 1, 5), groups=channels)
    return conv2d(images, row[:, None].expand(channels, 1, 5, 1), groups=channels)


def _resample(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[2:]) == grid:
        return maps
    return interpolate(maps, grid, mode="bilinear", antialias=True)


class FilterBank(Backbone):
    version = 1
    name = "filterbank"

    def __init__(self, strides: Sequence[int] = (4, 8), whiten: bool = True) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.whiten = whiten
        self.register_buffer(
            "filters", gabor_pairs(ORIENTATIONS, _WAVELENGTH, _SIGMA, _RADIUS)
        )
        self.freeze()

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name, "version": self.version, "strides": self.strides}

    def pyramid(self, images, octaves):
        out = [opponent_colors(images)]
        for _ in range(octaves - 1):
            out.append(_blur(out[-1])[:, :, ::2, ::2])
        return out

    def octave(self, image):
        light, chroma = image[:, :1], image[:, 1:]
        r = _RADIUS
        signed = conv2d(pad(light, (r, r, r, r), mode="reflect"), self.filters)
        even, odd = signed.chunk(2, dim=1)
        energy = torch.sqrt(even**2 + odd**2)
        blurred = _blur(image)
        band = (image - blurred)
        return energy, signed, band

    def raw(self, images):
        octs = [int(math.log2(s)) for s in self.strides]
        pyr = self.pyramid(images, max(octs) + 2)
        resp = [self.octave(p) for p in pyr]
        levels = []
        for stride, o in zip(self.strides, octs):
            grid = tuple(math.ceil(n / stride) for n in images.shape[2:])
            parts = []
            for q in range(o - 2, o + 2):
                energy, signed, band = resp[q]
                parts.append(torch.log(_FLOOR + _resample(energy, grid)))
                if q < o + 1:
                    parts.append(torch.log(_FLOOR + _resample(band[:, 1:].abs(), grid)))
            parts.append(pyr[o])
            parts.append(_resample(pyr[o + 1], grid))
            parts.append(resp[o][1])
            levels.append(torch.cat(parts, 1))
        return levels

    def extract(self, images: Tensor) -> list[Tensor]:
        return [l.permute(0, 2, 3, 1) for l in self.raw(images)]
