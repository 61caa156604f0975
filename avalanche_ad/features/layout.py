"""How the feature levels of one image are flattened into one vector and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

__all__ = ["FeatureLayout"]


@dataclass(frozen=True)
class FeatureLayout:
    """Shapes of the feature levels flattened into one vector per image.

    A level is stored position by position, channels last, so that the rows a flow
    reads are contiguous. ``unflatten`` returns views; nothing is copied.

    :param levels: (height, width, channels) of every level, finest first.

    >>> layout = FeatureLayout(((4, 4, 3), (2, 2, 3)))
    >>> [tuple(level.shape) for level in layout.unflatten(torch.zeros(5, layout.size))]
    [(5, 4, 4, 3), (5, 2, 2, 3)]
    """

    levels: tuple[tuple[int, int, int], ...]

    @property
    def size(self) -> int:
        """Numbers per image over all levels."""
        return sum(prod(level) for level in self.levels)

    def flatten(self, levels: Sequence[Tensor]) -> Tensor:
        """Flatten feature maps to one vector per image.

        :param levels: one tensor (N, H, W, C) per level.
        :return: (N, size).
        :raises ValueError: when the shapes are not those of the layout.
        """
        found = tuple(tuple(level.shape[1:]) for level in levels)
        if found != self.levels:
            raise ValueError(f"expected levels (H, W, C) {self.levels}, got {found}")
        return torch.cat([level.flatten(1) for level in levels], dim=1)

    def draw(
        self, categories: Tensor, draw: Callable[[int, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Return features of which every position is drawn on its own.

        :param categories: a category for each image, (N,).
        :param draw: from level, categories (P,) and positions (P,), indices into the
            level's H · W, to feature vectors (P, C).
        :return: (N, size).
        """
        levels = []
        for index, (height, width, channels) in enumerate(self.levels):
            total = height * width
            positions = torch.arange(total, device=categories.device)
            x = draw(
                index,
                categories.repeat_interleave(total),
                positions.repeat(len(categories)),
            )
            levels.append(x.view(len(categories), height, width, channels))
        return self.flatten(levels)

    def unflatten(self, features: Tensor) -> list[Tensor]:
        """Return one view (N, H, W, C) per level.

        :param features: (N, size).
        :raises ValueError: when the width is not ``size``.
        """
        if features.dim() != 2 or features.shape[1] != self.size:
            raise ValueError(
                f"expected features of shape (N, {self.size}), "
                f"got {tuple(features.shape)}"
            )
        parts = torch.split(features, [prod(level) for level in self.levels], dim=1)
        return [
            part.view(len(part), *level)
            for part, level in zip(parts, self.levels, strict=True)
        ]
