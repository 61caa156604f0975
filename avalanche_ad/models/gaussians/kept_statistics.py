"""What every form of a category's feature statistics offers: features to draw."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.category_table import CategoryTable
from avalanche_ad.models.gaussians.moments import Moments

__all__ = ["KeptStatistics", "StatisticsForm", "StatisticsPrecision"]

StatisticsForm = Literal["full", "diagonal", "low_rank", "place"]
"""A mixture with such covariances, or Gaussians that know the place."""
StatisticsPrecision = Literal["float16", "float32"]


class KeptStatistics(CategoryTable, ABC):
    """Statistics of a category's features per level, to sample from.

    The backbone is frozen, so they never drift.

    :param layout: shapes of the feature levels.
    :param form: of what is kept.
    :param components: groups per category and level that samples are told apart by,
        K; what follows from samples has a Gaussian for each.
    :param mean_field: whether a mean is kept for every position.
    :param shrinkage: ridge on covariances, relative to the features' mean variance.
    :param max_positions: feature vectors per category and level that groups are fitted
        to.
    :param max_iter: steps of that at most.
    :param seed: decides the vectors and the start.

    ``known`` (C,); ``images`` (C,), of how many images each category's were taken.

    >>> from avalanche_ad.models.gaussians import PlaceStatistics
    >>> kept = PlaceStatistics(FeatureLayout(((4, 4, 3),)))
    >>> isinstance(kept, KeptStatistics), kept.form, kept.precision
    (True, 'place', 'float16')
    """

    memory_kind = "statistics"
    rank = 0
    images: Tensor

    def __init__(
        self,
        layout: FeatureLayout,
        form: StatisticsForm,
        components: int,
        *,
        mean_field: bool,
        precision: StatisticsPrecision,
        shrinkage: float,
        max_positions: int,
        max_iter: int,
        seed: int,
    ) -> None:
        super().__init__()
        if precision not in ("float16", "float32"):
            raise ValueError(
                f"expected precision 'float16' or 'float32', got {precision!r}"
            )
        self.add_table("images", dtype=torch.long)
        self.layout = layout
        self.form = form
        self.components = components
        self.mean_field = mean_field
        self.shrinkage = shrinkage
        self.max_positions = max_positions
        self.max_iter = max_iter
        self.seed = seed

    @property
    def bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(buffer.nbytes for buffer in self.buffers())

    @property
    def precision(self) -> str:
        """Type of number that is kept, ``"float16"`` or ``"float32"``."""
        kept = next(one for one in self.buffers() if one.is_floating_point())
        return str(kept.dtype).removeprefix("torch.")

    def generator(self, category: int) -> torch.Generator:
        """Return what draws the vectors that a category is fitted to."""
        return torch.Generator().manual_seed(self.seed * 1009 + category)

    @abstractmethod
    def fit_category(self, category: int, features: Tensor) -> None:
        """Take the statistics of a category's training features.

        :param category: category index.
        :param features: (N, layout.size).
        """

    @abstractmethod
    def without(
        self, category: int, features: Tensor, parts: Sequence[Tensor]
    ) -> Iterator[KeptStatistics]:
        """Yield the statistics as they are when a category has some images alone.

        :param category: category with statistics.
        :param features: what it was fitted to (N, layout.size).
        :param parts: which of the images to keep, indices (M,).
        """

    @abstractmethod
    def gaussians(self, index: int, category: int) -> Moments | None:
        """Return the Gaussian of each group, ``None`` where groups have none.

        :param index: level.
        :param category: category with statistics.
        :return: weights that sum to 1, means (K, D) and covariances (K, D, D), float32.
        """

    @abstractmethod
    def sample_level(
        self,
        index: int,
        categories: Tensor,
        positions: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw feature vectors of one level.

        The draws are a CPU's, so that they are the same on every device.

        :param index: level.
        :param categories: categories with statistics (P,).
        :param positions: indices (P,) into the level's H · W positions.
        :param generator: source of the draws, on the CPU; torch's own by default.
        :return: x (P, D), float32, and the group of each (P,).
        """

    def sample(
        self, categories: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw features; positions are drawn independently of each other.

        :param categories: categories with statistics (N,).
        :param generator: source of the draws, on the CPU; torch's own by default.
        :return: (N, layout.size), float32.
        """

        def draw(index: int, categories: Tensor, positions: Tensor) -> Tensor:
            return self.sample_level(index, categories, positions, generator)[0]

        return self.layout.draw(categories, draw)
