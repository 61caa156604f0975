"""Densities of features that know the place, fitted to each category once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.density_model import LikelihoodMap
from avalanche_ad.models.fitted_density import FittedDensity, FittedDensityOptions
from avalanche_ad.models.gaussians import PlaceDensity, moments_without
from avalanche_ad.registry.options import Count

__all__ = ["PlacedDensity", "PlacedDensityOptions"]


class PlacedDensityOptions(FittedDensityOptions):
    """``[model]`` of every density that knows the place.

    >>> PlacedDensityOptions(type="own").cells
    8
    """

    cells: Count = 8


class PlacedDensity(FittedDensity):
    """A Gaussian for every position of a category and level.

    Its mean is that of the training images at the position, its covariance that of a
    cell of the grid, shrunk to that of all positions, see
    :mod:`~avalanche_ad.models.gaussians.place`. Its likelihood tells the category and
    is the map ``likelihood``; a subclass may add maps.

    >>> from avalanche_ad.models import PaDiM
    >>> issubclass(PaDiM, PlacedDensity)
    True

    :param layout: shapes of the feature levels.
    :param cells: rows and columns of cells on each level; at most one a position.
    :param covariance_shrinkage: added to the diagonals, relative to the features' mean
        variance.
    :param score_kind: see :class:`FittedDensity`, like those that follow.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        cells: int = 8,
        covariance_shrinkage: float = 1e-2,
        score_kind: str = "likelihood",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        position_calibration: bool = True,
    ) -> None:
        super().__init__(
            layout,
            score_kind,
            smoothing_sigma,
            likelihood_map,
            position_calibration,
        )
        self.places = nn.ModuleList(
            PlaceDensity(*shape, cells, covariance_shrinkage) for shape in layout.levels
        )

    def _place(self, index: int) -> PlaceDensity:
        place = self.places[index]
        assert isinstance(place, PlaceDensity)
        return place

    @property
    def num_categories(self) -> int:
        """Categories there is room for, seen or not."""
        return self._place(0).num_categories

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories fitted so far, ascending."""
        return self._place(0).categories

    def resize(self, num_categories: int) -> None:
        """Make room for categories without fitting them."""
        for index in range(len(self.places)):
            self._place(index).resize(num_categories)

    def fit_levels(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit one category, in closed form; see :class:`FittedDensity`."""
        for index, level in enumerate(levels):
            self._place(index).fit(category, level)

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether the density is fitted anew for images held out.

        It is, unless it was fitted to more of them.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return int(self._place(0).images[category]) <= images

    def likelihood_without(
        self,
        category: int,
        features: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[Mapping[str, list[Tensor]]]:
        """Yield what positions say under the density of some images alone.

        See :class:`FittedDensity`. Exact, from sums over images, but for how far
        covariances are shrunk, which stays.
        """
        places = self._places_without(category, features, [rest for rest, _ in parts])
        for (_, rows), densities in zip(parts, places, strict=True):
            yield {
                "likelihood": [
                    density.log_likelihood(level.flatten(1, 2), 0).view(level.shape[:3])
                    for density, level in zip(
                        densities, (one[rows] for one in features), strict=True
                    )
                ]
            }

    def _places_without(
        self, category: int, features: Sequence[Tensor], parts: Sequence[Tensor]
    ) -> Iterator[list[PlaceDensity]]:
        """Yield, per part, the levels' densities of its images, as category 0."""
        moments = [
            moments_without(level, self._place(index).cells, parts)
            for index, level in enumerate(features)
        ]
        for kept, of_levels in zip(parts, zip(*moments, strict=True), strict=True):
            found = []
            for index, own in enumerate(of_levels):
                place = self._place(index)
                density = PlaceDensity(
                    *self.layout.levels[index], place.cells, place.shrinkage
                ).to(place.means)
                density.put(0, own, float(place.shares[category]), len(kept))
                found.append(density)
            yield found

    def log_likelihood(
        self, index: int, x: Tensor, categories: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return log p(x|c) (N, P, C') where the positions are."""
        place = self._place(index)
        found = [place.log_likelihood(x, c, positions) for c in categories.tolist()]
        return torch.stack(found, -1)
