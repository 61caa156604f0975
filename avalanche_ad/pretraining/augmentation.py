"""Random views of a minibatch of photographs, all on tensors, none in a loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = [
    "Mixed",
    "colour_jitter",
    "cut_mix",
    "random_crops",
    "random_views",
]

_LUMA = (0.299, 0.587, 0.114)


def random_views(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return one random view of every image.

    :param images: (N, 3, S, S), uint8.
    :param size: side of the views in pixels.
    :param generator: source of every choice, on the CPU.
    :return: (N, 3, size, size), float32, RGB around [0, 1].
    """
    views = images.to(torch.float32).div_(255.0)
    views = random_crops(views, size, generator)
    return colour_jitter(views, generator)


def random_crops(
    images: Tensor,
    size: int,
    generator: torch.Generator,
    area: tuple[float, float] = (0.35, 1.0),
    aspect: float = 4 / 3,
) -> Tensor:
    """Crop a random part, of random size and aspect, flip it, resize it.

    :param images: (N, 3, S, S).
    :param size: side of the crops in pixels.
    :param generator: source of every choice, on the CPU.
    :param area: least and largest share of the image's area.
    :param aspect: largest ratio of the sides, drawn uniformly in the logarithm.
    """
    count = len(images)
    draw = torch.rand(5, count, generator=generator)
    share = area[0] + (area[1] - area[0]) * draw[0]
    stretch = ((2 * draw[1] - 1) * 0.5 * math.log(aspect)).exp()
    width = (share.sqrt() * stretch).clamp(max=1.0)
    height = (share.sqrt() / stretch).clamp(max=1.0)
    flip = torch.where(draw[2] < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = flip * width
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * draw[3] - 1) * (1 - width)
    theta[:, 1, 2] = (2 * draw[4] - 1) * (1 - height)
    shape = [count, images.shape[1], size, size]
    grid = affine_grid(theta.to(images.device), shape, align_corners=False)
    return grid_sample(images, grid, padding_mode="reflection", align_corners=False)


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


@dataclass(frozen=True)
class Mixed:
    """What a minibatch shows: one class outside of a mask, another inside.

    :param first: (N,) classes outside.
    :param second: (N,) classes inside.
    :param mask: (N, S, S), 1 inside.
    """

    first: Tensor
    second: Tensor
    mask: Tensor


def cut_mix(
    images: Tensor, labels: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, Mixed]:
    """Paste a box of another image into a share of the images.

    The box has the image's proportions, an area uniform in [0, 1] and any place that
    its middle may take (CutMix: Yun et al., ICCV 2019).

    :param images: (N, 3, S, S).
    :param labels: (N,).
    :param share: how many images get a box.
    :param generator: source of every choice, on the CPU.
    :return: the images, and what they show.
    """
    count, size = len(images), images.shape[-1]
    draw = torch.rand(4, count, generator=generator)
    partner = torch.randperm(count, generator=generator).to(images.device)
    half = 0.5 * draw[0].sqrt() * (draw[1] < share)
    axis = (torch.arange(size) + 0.5) / size
    rows = (axis - draw[2][:, None]).abs() < half[:, None]
    columns = (axis - draw[3][:, None]).abs() < half[:, None]
    mask = (rows[:, :, None] & columns[:, None, :]).to(images)
    mixed = torch.lerp(images, images[partner], mask[:, None])
    return mixed, Mixed(labels, labels[partner], mask)
