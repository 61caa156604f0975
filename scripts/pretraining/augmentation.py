"""Random views of a minibatch of photographs, all on tensors, none in a loop."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = [
    "colour_jitter",
    "crop",
    "crop_windows",
    "places_in_both",
]

_LUMA = (0.299, 0.587, 0.114)


def crop_windows(
    count: int,
    generator: torch.Generator,
    area: tuple[float, float] = (0.35, 1.0),
    aspect: float = 4 / 3,
) -> Tensor:
    """Draw parts of images, of random size, aspect and place, every other mirrored.

    :param count: N, how many.
    :param generator: source of every choice, on the CPU.
    :param area: least and largest share of the image's area.
    :param aspect: largest ratio of the sides, drawn uniformly in the logarithm.
    :return: (N, 2, 3), of every part the affine map from its plane to the image's,
        both [−1, 1]².
    """
    draw = torch.rand(5, count, generator=generator)
    share = area[0] + (area[1] - area[0]) * draw[0]
    stretch = ((2 * draw[1] - 1) * 0.5 * math.log(aspect)).exp()
    width = (share.sqrt() * stretch).clamp(max=1.0)
    height = (share.sqrt() / stretch).clamp(max=1.0)
    flip = torch.where(draw[2] < 0.5, -1.0, 1.0)
    windows = torch.zeros(count, 2, 3)
    windows[:, 0, 0] = flip * width
    windows[:, 1, 1] = height
    windows[:, 0, 2] = (2 * draw[3] - 1) * (1 - width)
    windows[:, 1, 2] = (2 * draw[4] - 1) * (1 - height)
    return windows


def crop(images: Tensor, windows: Tensor, size: int) -> Tensor:
    """Return parts of images, resized.

    :param images: (N, 3, S, S).
    :param windows: (N, 2, 3), see :func:`crop_windows`.
    :param size: side of the crops in pixels.
    :return: (N, 3, size, size).
    """
    shape = [len(images), images.shape[1], size, size]
    grid = affine_grid(windows.to(images.device), shape, align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def places_in_both(
    first: Tensor, second: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw places of images that two crops of each both show.

    :param first: (N, 2, 3), see :func:`crop_windows`.
    :param second: (N, 2, 3), other crops of the same images; each two overlap, as
        crops of more than half the sides always do.
    :param count: P, how many places of each image.
    :param generator: source of every choice, on the CPU.
    :return: the same places in the plane of the first and of the second crops, each
        (N, P, 2), x and y in [−1, 1].
    """
    windows = torch.stack([first, second])
    scale = windows[..., :2].diagonal(dim1=2, dim2=3)
    shift = windows[..., 2]
    start = (shift - scale.abs()).amax(0)[:, None]
    end = (shift + scale.abs()).amin(0)[:, None]
    draw = torch.rand(len(first), count, 2, generator=generator)
    place = start + (end - start) * draw
    seen = (place - shift[:, :, None]) / scale[:, :, None]
    return seen[0], seen[1]


def colour_jitter(
    images: Tensor,
    generator: torch.Generator,
    strength: float = 0.2,
    grey: float = 0.1,
) -> Tensor:
    """Change brightness, contrast, saturation and tint; a share becomes grey.

    :param images: (N, 3, S, S).
    :param generator: source of every choice.
    :param strength: gains are drawn from 1 ± strength, of single channels half of it.
    :param grey: share of the images that loses all colour.
    """
    count = len(images)
    draw = (2 * torch.rand(6, count, generator=generator) - 1).to(images.device)
    gains = (1 + strength * draw)[:, :, None, None, None]
    brightness, contrast, saturation = gains[0], gains[1], gains[2]
    tint = (1 + 0.5 * strength * draw[3:].T)[:, :, None, None]
    luma = images.new_tensor(_LUMA)[:, None, None]
    images = images * brightness * tint
    middle = (images * luma).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    images = middle + contrast * (images - middle)
    lightness = (images * luma).sum(1, keepdim=True)
    drained = torch.rand(count, generator=generator) < grey
    saturation = saturation * (~drained).to(images)[:, None, None, None]
    return lightness + saturation * (images - lightness)
