"""What scores are usual where: what normals have at a position, or typically."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from avalanche_ad.models.category_table import (
    CategoryTable,
    known_rows,
    own_or_borrowed,
    with_rows,
)
from avalanche_ad.models.scoring import normality_map

__all__ = ["PositionCalibration", "at_most_typical", "mean_and_deviation"]

_LEAST_DEVIATION = 1e-3
"""Of normals that hardly differ, as entropies over one category."""


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
    :return: (H, W) each; the deviation is 1e-3 or more.
    """
    count, size = len(level), (level.shape[1], level.shape[2])
    moments = torch.stack([level.mean(0), level.var(0, correction=0)])
    moments[1] += moments[0].square()
    mean, square = normality_map([moments], size, sigma)
    variance = (square - mean.square()).clamp(min=0)
    variance = (count * variance + prior * variance.mean()) / (count + prior)
    return mean, variance.sqrt().clamp(min=_LEAST_DEVIATION)


def at_most_typical(mean: Tensor) -> Tensor:
    """Return how normal each position is held to be: its own mean, or the typical one.

    m'_p = min(m_p, med_p m), med the median over positions.

    Positions have effects of one sign: some are less normal than the typical position,
    none is held to more. This is the mode of the effects in a hierarchical model of
    positions whose prior is flat below the median and zero above it. With effects of
    both signs a background that is always still is raised to the level of the part on
    it, and the score map no longer tells the two apart.

    :param mean: m (H, W), higher is more normal.
    :return: (H, W).

    >>> at_most_typical(torch.tensor([[-9.0, -1.0, 0.0]]))
    tensor([[-9., -1., -1.]])
    """
    return mean.minimum(mean.quantile(0.5))


class PositionCalibration(CategoryTable):
    """Standardise what every position says by what a category's normals have there.

    A density that knows no place finds the borders of all images unusual, where a
    network sees its padding and a product ends; that hides what is unusual elsewhere.
    PaDiM (Defard et al., ICPR 2021) keeps a Gaussian for each position; here it is two
    numbers of the one density: a deviation, and a mean that is :func:`at_most_typical`.

    :param shapes: (H, W) of each level.

    Shapes: ``level_l`` (C, 2, H, W), what becomes 0 and the deviation; NaN without an
    image.

    >>> usual = PositionCalibration([(8, 8)])
    >>> levels = [torch.randn(20, 8, 8) + torch.linspace(0, 9, 8)]
    >>> usual.fit(0, levels)
    >>> round(float(usual(levels, torch.zeros(20, dtype=torch.long))[0].max()), 4)
    0.0
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__(known=False)
        for index, shape in enumerate(shapes):
            self.add_table(f"level_{index}", 2, *shape, blank=torch.nan)

    def fit(self, category: int, levels: Sequence[Tensor]) -> None:
        """Take a category's statistics of its normals.

        :param category: its index.
        :param levels: values that are the larger, the more normal a position is, one
            (N, H, W) per level.
        """
        for index, level in enumerate(levels):
            mean, deviation = mean_and_deviation(level)
            mean = at_most_typical(mean)
            largest = ((level - mean) / deviation).max()
            row = torch.stack([mean + largest * deviation, deviation])
            name = f"level_{index}"
            # a new table, so that whoever holds the one before can put it back
            setattr(self, name, with_rows(self.get_buffer(name), {category: row}))

    def forward(self, levels: Sequence[Tensor], category: Tensor) -> list[Tensor]:
        """Return (v − mean) / deviation less the largest of the normals given.

        Mean and deviation are of the category and the position. A category that never
        had an image borrows the others' mean statistics.

        :param levels: v, one (N, H, W) per level.
        :param category: index of the category each image is scored by, (N,).
        """
        found = []
        for index, level in enumerate(levels):
            table = self.get_buffer(f"level_{index}")
            borrowed = known_rows(table).mean(0)
            rows = own_or_borrowed(table, category, borrowed)
            zero, deviation = rows.unbind(1)
            found.append((level - zero) / deviation)
        return found
