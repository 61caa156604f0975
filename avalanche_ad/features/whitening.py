"""Whitening statistics of the filter bank, from drawn images of nothing in particular.

``python -m avalanche_ad.features.whitening`` writes the file the package holds. The
images are coloured noise of spectra 1/f^a and dead leaves (overlapping shapes, sizes by
a power law, textured and shaded: Lee, Mumford & Huang, IJCV 2001), whose statistics are
close to those of photographs. No image of any data set is used, so features of a
category never depend on which categories were seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avalanche_ad.features.backbones.filterbank import STRIDES, FilterBank

__all__ = ["draw_image", "drawn_images", "main", "statistics", "whitening"]

_IMAGES = 192
_SIZE = 256
_SHRINKAGE = 0.02

Array = npt.NDArray[np.float64]


def main() -> None:
    """Compute the statistics and write the file."""
    from safetensors.torch import save

    path = Path(__file__).parent / "data" / "whitening.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(save(statistics(drawn_images())))


def drawn_images() -> Tensor:
    """Return the images (N, 3, S, S) in [0, 1] that statistics are taken of."""
    generator = np.random.default_rng(20240229)
    images = [draw_image(_SIZE, generator) for _ in range(_IMAGES)]
    return torch.from_numpy(np.stack(images))


def statistics(images: Tensor) -> dict[str, Tensor]:
    """Return the mean and the whitening matrix of every stride.

    :param images: (N, 3, S, S), values in [0, 1].
    :return: ``mean_<stride>`` (C,) and ``matrix_<stride>`` (C, C), float32.
    """
    bank = FilterBank(STRIDES, whiten=False)
    batches = [bank(batch.float()) for batch in torch.split(images, 16)]
    found = {}
    for stride, parts in zip(STRIDES, zip(*batches, strict=True), strict=True):
        mean, matrix = whitening(torch.cat([part.flatten(0, 2) for part in parts]))
        found[f"mean_{stride}"], found[f"matrix_{stride}"] = mean, matrix
    return found


def whitening(
    rows: Tensor,
    shrinkage: float = _SHRINKAGE,
    channels: int = 0,
    parts: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return mean and matrix of a whitening: (x - mean) @ matrix.

    With scales D of the columns, R the covariance of the columns so scaled and V Λ Vᵀ
    the eigendecomposition of (1 - s) R + s I, s so that directions that hardly vary are
    not blown up to noise: matrix = D⁻¹ V Λ^(-1/2) Vᵀ, the zero-phase one; or, of
    leading principal components alone, D⁻¹ V Λ^(-1/2).

    :param rows: (N, C).
    :param shrinkage: s.
    :param channels: how many principal components are kept; 0 for the zero-phase form.
    :param parts: how many columns each part of a stack has: a part has one scale, so
        that all parts have the same total variance and none rules the components by
        its number of columns. By default each column has its standard deviation.
    :return: (C,) and (C, C or channels), float32.
    """
    rows = rows.double()
    deviation = rows.std(dim=0)
    # a channel that never responds has no correlations, and no scale
    deviation = deviation.clamp(min=1e-3 * float(deviation.mean()))
    if parts is None:
        covariance = torch.corrcoef(rows.T).nan_to_num().fill_diagonal_(1.0)
    else:
        share = rows.shape[1] / len(parts)  # of the total variance, which is C
        deviation = torch.cat(
            [
                (part.square().sum() / share).sqrt().expand(len(part))
                for part in torch.split(deviation, list(parts))
            ]
        )
        covariance = torch.cov((rows / deviation).T)
    values, vectors = torch.linalg.eigh(
        (1 - shrinkage) * covariance + shrinkage * torch.eye(len(covariance))
    )
    root = vectors * values.rsqrt()
    root = root[:, -channels:] if channels else root @ vectors.T
    return rows.mean(dim=0).float(), (root / deviation[:, None]).float().contiguous()


def draw_image(size: int, generator: np.random.Generator) -> Array:
    """Draw one image.

    :param size: side in pixels.
    :param generator: source of every choice.
    :return: RGB (3, size, size), values in [0, 1].
    """
    axis = np.linspace(-1, 1, size)
    x, y = np.meshgrid(axis, axis)
    image = _surface(size, generator)
    radius_low, radius_high = 0.04, 0.8
    for _ in range(generator.integers(0, 80)):
        # Density of radii r^-3, the one that makes dead leaves scale-free.
        share = generator.uniform()
        radius = (radius_low**-2 * (1 - share) + radius_high**-2 * share) ** -0.5
        center, angle = generator.uniform(-1.1, 1.1, 2), generator.uniform(0, np.pi)
        u = (x - center[0]) * np.cos(angle) + (y - center[1]) * np.sin(angle)
        v = (y - center[1]) * np.cos(angle) - (x - center[0]) * np.sin(angle)
        u = u * generator.uniform(1, 3)
        round_shape = generator.uniform() < 0.5
        distance = np.hypot(u, v) if round_shape else np.maximum(abs(u), abs(v))
        softness = generator.choice([1.0, 1.0, 3.0, 8.0]) * 2 / size
        alpha = np.clip((radius - distance) / softness + 0.5, 0, 1)
        image += alpha * (_surface(size, generator) - image)
    image += generator.uniform(0, 0.02) * generator.standard_normal(image.shape)
    return np.clip(image, 0, 1)


def _surface(size: int, generator: np.random.Generator) -> Array:
    """Draw a colour with 1/f^a noise, perhaps a grating, and a slope of light."""
    lightness, chroma = generator.uniform(0.1, 0.9), generator.normal(0, 0.12, 3)
    color = (lightness + chroma - chroma.mean())[:, None, None]
    texture = generator.exponential(0.07) * _noise(size, generator)
    if generator.uniform() < 0.3:
        axis = np.arange(size)
        wave = 2 * np.pi / generator.uniform(3, 32)
        angle = generator.uniform(0, np.pi)
        phase = wave * (axis * np.cos(angle) + axis[:, None] * np.sin(angle))
        texture += generator.exponential(0.07) * np.sin(phase)
    slope = np.linspace(-1, 1, size) * generator.normal(0, 0.1)
    light = 1 + (slope if generator.uniform() < 0.5 else slope[:, None])
    tint = 1 + generator.normal(0, 0.15, (3, 1, 1))
    surface: Array = (color + tint * texture) * light
    return surface


def _noise(size: int, generator: np.random.Generator) -> Array:
    """Draw noise of unit variance with amplitude spectrum f^-a, a within 0.5-1.5."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.standard_normal((size, size)))
    noise = np.fft.irfft2(
        spectrum * frequency ** -generator.uniform(0.5, 1.5), s=(size, size)
    )
    unit: Array = noise / noise.std()
    return unit


if __name__ == "__main__":
    main()
