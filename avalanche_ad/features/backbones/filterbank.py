"""An analytic bank of filters: features without weights, download or training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from avalanche_ad.errors import RecipeError
from avalanche_ad.features.backbone import Backbone, chosen_strides

__all__ = ["CHANNELS", "STRIDES", "FilterBank", "gabor_pairs", "opponent_colors"]

STRIDES = (4, 8, 16)
"""Strides a level may have; for these the package holds whitening statistics."""

CHANNELS = 45
"""Channels of every level."""

_ORIENTATIONS = 6
_WAVELENGTH = 4.0
_SIGMA = 1.8
_RADIUS = 4
# Below this contrast (of images in [0, 1]) a response counts as noise.
_NOISE = 0.01
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class FilterBank(Backbone):
    r"""Describe every position by its colours, edges and textures at four octaves.

    A Gaussian pyramid of the lightness and two opponent colours is filtered by
    quadrature pairs :math:`(e_\theta, o_\theta)` of Gabor functions, wavelength 4 px at
    each octave, 6 orientations. A level of stride s holds 45 channels:

    * :math:`\log(\epsilon + G * \sqrt{e_\theta^2 + o_\theta^2})` at wavelengths s, 2s,
      4s, 8s, each averaged around the position (24);
    * the same of the absolute band-pass of both opponent colours, the first three
      octaves (6);
    * the lightness and the opponent colours themselves (3);
    * the signed responses :math:`e_\theta, o_\theta` at wavelength 4s, as
      :math:`\operatorname{sign}(r) \log(1 + |r| / 2\epsilon)` (12).

    Averaging over more than one position makes a level tolerate small shifts and see
    its surroundings. Borders are reflected. All levels are of equal width and, scale
    apart, of equal meaning. Whitening (zero-phase, on correlations shrunk to the
    identity) uses statistics of drawn images, never of a data set; see
    :mod:`avalanche_ad.features.whitening`.

    :param strides: pixels per position of each level, rising, out of 4, 8 and 16.
    :param whiten: whether the channels of a level are decorrelated.
    :raises RecipeError: for other strides.

    >>> FilterBank(strides=(4, 8)).layout(128)
    FeatureLayout(levels=((32, 32, 45), (16, 16, 45)))
    """

    version = 1
    name = "filterbank"

    def __init__(
        self, strides: Sequence[int] | int = (4, 8), whiten: bool = True
    ) -> None:
        super().__init__()
        chosen = chosen_strides(strides, STRIDES, "backbone filterbank: ")
        if not isinstance(whiten, bool):
            raise RecipeError(
                f"backbone filterbank: whiten must be true or false, got {whiten!r}"
            )
        self.strides = tuple(chosen)
        self.whiten = whiten
        self.register_buffer(
            "filters", gabor_pairs(_ORIENTATIONS, _WAVELENGTH, _SIGMA, _RADIUS)
        )
        if whiten:
            for key, value in _whitening().items():
                if int(key.rpartition("_")[2]) in self.strides:
                    self.register_buffer(key, value)
        self.freeze()

    def __repr__(self) -> str:
        return f"FilterBank(strides={self.strides}, whiten={self.whiten})"

    @classmethod
    def check(cls, strides: Sequence[int] | int = (4, 8), whiten: bool = True) -> None:
        """Refuse strides that there are no statistics for.

        :raises RecipeError: naming those that there are.
        """
        chosen_strides(strides, STRIDES, "backbone filterbank: ")

    def describe(self) -> Mapping[str, Any]:
        """Return all that decides the features besides the stored tensors."""
        return {
            "kind": self.name,
            "version": self.version,
            "strides": self.strides,
            "noise": _NOISE,
        }

    def extract(self, images: Tensor) -> list[Tensor]:
        """Return the levels (N, H, W, 45), finest first, of images (N, 3, S, S)."""
        levels = []
        for stride, level in zip(self.strides, self._channels(images), strict=True):
            level = level.permute(0, 2, 3, 1)
            if self.whiten:
                mean = self.get_buffer(f"mean_{stride}")
                level = (level - mean) @ self.get_buffer(f"matrix_{stride}")
            levels.append(level)
        return levels

    def _channels(self, images: Tensor) -> list[Tensor]:
        """Return the channels (N, 45, H, W) of every level before whitening."""
        height, width = images.shape[2:]
        smallest = 2 * self.strides[-1] * (_RADIUS + 1)
        if min(height, width) < smallest:
            raise RecipeError(
                f"backbone filterbank: images of {height} x {width} pixels are too "
                f"small for stride {self.strides[-1]}; take {smallest} pixels or more, "
                "or smaller strides"
            )
        # The octave of stride s is number log2(s); a level reaches one octave further.
        octaves = [int(math.log2(stride)) for stride in self.strides]
        pyramid = [opponent_colors(images)]
        for _ in range(octaves[-1] + 1):
            pyramid.append(_halved(pyramid[-1]))
        # what no level looks at, the finest octaves as a rule, is not filtered
        signed = {
            octave: _filtered(pyramid[octave][:, :1], self.get_buffer("filters"))
            for octave in range(octaves[0] - 2, len(pyramid))
        }
        contrasts = {}
        for octave, pair in signed.items():
            colors = pyramid[octave][:, 1:]
            opponent = (colors - _blur(colors)).abs()
            contrasts[octave] = torch.cat([_amplitude(pair), opponent], dim=1)
        levels = []
        for octave in octaves:
            grid = pyramid[octave].shape[2:]
            near = [
                _resample(contrasts[index], grid)
                for index in range(octave - 2, octave + 1)
            ]
            far = _resample(contrasts[octave + 1][:, :_ORIENTATIONS], grid)
            contrast = _blur(torch.cat([*near, far], dim=1))
            levels.append(
                torch.cat(
                    [
                        torch.log(_NOISE + contrast),
                        pyramid[octave],
                        _compressed(signed[octave]),
                    ],
                    dim=1,
                )
            )
        return levels


def gabor_pairs(
    orientations: int, wavelength: float, sigma: float, radius: int
) -> Tensor:
    """Return quadrature pairs of oriented band-pass filters.

    g(u) = exp(-|u|²/2σ²) · cos or sin(2π u·n/λ), the even one without its mean, each
    of unit norm (Daugman, JOSA A 1985).

    :param orientations: how many directions n, spread evenly over half a turn.
    :param wavelength: λ in pixels.
    :param sigma: σ in pixels.
    :param radius: the filters have 2 · radius + 1 taps a side.
    :return: (2 · orientations, 1, taps, taps), the even filters first.
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
    filters = torch.stack(even + odd)
    filters /= filters.flatten(1).norm(dim=1)[:, None, None]
    return filters.unsqueeze(1).to(torch.float32)


def opponent_colors(images: Tensor) -> Tensor:
    """Return lightness, red against green, and yellow against blue.

    (R + G + B)/3, (R - G)/2 and (R + G)/4 - B/2.

    :param images: RGB (N, 3, H, W).
    :return: (N, 3, H, W).
    """
    red, green, blue = images.unbind(1)
    return torch.stack(
        [(red + green + blue) / 3, (red - green) / 2, (red + green) / 4 - blue / 2],
        dim=1,
    )


def _whitening() -> dict[str, Tensor]:
    """Return ``mean_<stride>`` (C,) and ``matrix_<stride>`` (C, C) of every stride."""
    from safetensors.torch import load_file

    source = files("avalanche_ad.features") / "data" / "whitening.safetensors"
    with as_file(source) as path:
        return load_file(path)


def _filtered(lightness: Tensor, filters: Tensor) -> Tensor:
    border = (_RADIUS,) * 4
    return conv2d(pad(lightness, border, mode="reflect"), filters)


def _amplitude(pairs: Tensor) -> Tensor:
    even, odd = pairs.chunk(2, dim=1)
    return torch.sqrt(even**2 + odd**2)


def _compressed(signed: Tensor) -> Tensor:
    """Return sign(r) log(1 + |r|/2ε), which keeps the sign and shortens the tails."""
    return signed.sign() * torch.log1p(signed.abs() / (2 * _NOISE))


def _halved(images: Tensor) -> Tensor:
    """Halve the size by the filter (1, 3, 3, 1)/8, whose centre is between pixels.

    So every octave stays in register with the image and with the score map made of it.
    """
    height, width = images.shape[2:]
    return _resample(images, torch.Size([(height + 1) // 2, (width + 1) // 2]))


def _blur(images: Tensor) -> Tensor:
    """Smooth by a 5-tap binomial filter, borders reflected."""
    channels = images.shape[1]
    row = images.new_tensor(_BINOMIAL)
    images = pad(images, (2, 2, 2, 2), mode="reflect")
    images = conv2d(images, row.expand(channels, 1, 1, 5), groups=channels)
    return conv2d(images, row[:, None].expand(channels, 1, 5, 1), groups=channels)


def _resample(maps: Tensor, grid: torch.Size) -> Tensor:
    """Bring maps to a grid; a finer map is averaged, a coarser one interpolated."""
    if maps.shape[2:] == grid:
        return maps
    return interpolate(maps, tuple(grid), mode="bilinear", antialias=True)
