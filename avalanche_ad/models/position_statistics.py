"""What log-likelihoods are usual where: mean and deviation per position of normals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ad.models.scoring import normality_map

__all__ = ["PositionStatistics", "mean_and_deviation"]


def mean_and_deviation(
    level: Tensor, sigma: float = 1.0, prior: float = 8.0
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over images at every position.

    Both moments are smoothed over neighbouring positions. The variance s² of N images
    is drawn to its mean s̄² over all positions, which counts as n₀ images:
    σ² = (N s² + n₀ s̄²) / (N + n₀).

    :param level: (N, H, W), N at least 1.
    :param sigma: standard deviation of the smoothing, in positions.
    :param prior: n₀.
    :return: (H, W) each; the deviation is positive.
    """
    count, size = len(level), (level.shape[1], level.shape[2])
    moments = torch.stack([level.mean(0), level.var(0, correction=0)])
    moments[1] += moments[0].square()
    mean, square = normality_map([moments], size, sigma)
    variance = (square - mean.square()).clamp(min=0)
    variance = (count * variance + prior * variance.mean()) / (count + prior)
    return mean, variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt()


class PositionStatistics(nn.Module):
    """Standardise the log-likelihoods of every position by a category's normals.

    A density that knows no place finds the borders of all images unusual, where a
    network sees its padding and a product ends; that hides what is unusual elsewhere.
    PaDiM (Defard et al., ICPR 2021) keeps a Gaussian for each position; here it is two
    numbers of the one density.

    :param shapes: (H, W) of each level.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        for index, shape in enumerate(shapes):
            # mean and deviation of each category; NaN where it never had an image
            self.register_buffer(f"level_{index}", torch.zeros(0, 2, *shape))

    def fit(self, category: int, levels: Sequence[Tensor]) -> None:
        """Take a category's statistics of its normals.

        :param category: its index.
        :param levels: log p(x|c)/D, one (N, H, W) per level.
        """
        for index, level in enumerate(levels):
            before = self.get_buffer(f"level_{index}")
            count = max(len(before), category + 1)
            table = before.new_full((count, *before.shape[1:]), torch.nan)
            table[: len(before)] = before
            table[category] = torch.stack(mean_and_deviation(level)).to(table)
            setattr(self, f"level_{index}", table)

    def forward(self, levels: Sequence[Tensor], category: Tensor) -> list[Tensor]:
        """Return (v − mean) / deviation, both of the category and the position.

        A category that never had an image borrows the others' mean statistics.

        :param levels: v, one (N, H, W) per level.
        :param category: index of the category each image is judged by, (N,).
        """
        found = []
        for index, level in enumerate(levels):
            table = self.get_buffer(f"level_{index}")
            has = ~table.flatten(1).isnan().any(1)
            count = max(len(table), int(category.max()) + 1)
            rows = table[has].mean(0).repeat(count, 1, 1, 1)
            rows[: len(table)][has] = table[has]
            mean, deviation = rows[category].unbind(1)
            found.append((level - mean) / deviation)
        return found

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *args: Any,  # noqa: ANN401
    ) -> None:
        """Make room for the categories of a state, then load it."""
        for name, buffer in list(self.named_buffers()):
            if prefix + name in state_dict:
                like = torch.empty_like(state_dict[prefix + name], device=buffer.device)
                setattr(self, name, like)
        super()._load_from_state_dict(state_dict, prefix, *args)
