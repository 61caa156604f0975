"""A Gaussian for every position, of what it and its neighbours hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from avalanche_ad.errors import RecipeError, TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.density_model import LikelihoodMap
from avalanche_ad.models.fitted_density import FittedDensity, FittedDensityOptions
from avalanche_ad.models.gaussians import (
    LevelMixtures,
    PlaceDensity,
    moments_without,
)
from avalanche_ad.models.scores import score_named
from avalanche_ad.registry.options import Count, ModelOptions

__all__ = ["PaDiM", "PaDiMOptions"]


class PaDiMOptions(FittedDensityOptions):
    """``[model]`` of type ``padim``: densities that know the place, without epochs.

    >>> PaDiMOptions(cells=4).components
    0
    """

    type: str = "padim"
    cells: Count = 8
    components: int = Field(0, ge=0)


class PaDiM(FittedDensity):
    """A Gaussian for every position of a category and level.

    Its mean is that of the training images at the position, its covariance that of a
    cell of the grid, shrunk to that of all positions, see
    :mod:`~avalanche_ad.models.gaussians.place`. PaDiM (Defard et al., ICPR 2021,
    arXiv 2011.08785) has a covariance for each position alone.

    Each category is fitted once, in closed form, and never touched again: nothing is
    forgotten, and no image is kept.

    With ``components`` there is a second expert that knows no place, a mixture of so
    many Gaussians for all positions, which gives a map ``anywhere``; the score
    ``"product_of_experts"`` is of both.

    >>> model = PaDiM(FeatureLayout(((4, 4, 2),)), cells=2)
    >>> x = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    >>> model.fit_experience([(x, torch.zeros(8, dtype=torch.long))])
    >>> model(x).shape
    torch.Size([8, 1])

    :param layout: shapes of the feature levels.
    :param num_categories: room made beforehand; more is made when categories arrive.
    :param cells: rows and columns of cells on each level; at most one a position.
    :param components: Gaussians K of the second expert, 0 for none.
    :param covariance_shrinkage: added to the diagonals, relative to the features' mean
        variance.
    :param max_positions: feature vectors per category and level that the second expert
        is fitted to.
    :param score_kind: see :class:`DensityModel`; ``"likelihood"`` by default.
    :param smoothing_sigma: see :class:`DensityModel`.
    :param likelihood_map: see :class:`DensityModel`.
    :param seed: of the second expert.
    :param position_calibration: see :class:`DensityModel`.
    :param doubt: see :class:`FittedDensity`.
    :raises RecipeError: for a score of a second expert that there is not.
    """

    kind = "padim"
    Options = PaDiMOptions
    maps = ("likelihood", "uncertainty", "anywhere")

    def __init__(
        self,
        layout: FeatureLayout,
        num_categories: int = 0,
        cells: int = 8,
        components: int = 0,
        covariance_shrinkage: float = 1e-2,
        max_positions: int = 20_000,
        score_kind: str = "likelihood",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        seed: int = 0,
        position_calibration: bool = True,
        doubt: float = 0.0,
    ) -> None:
        super().__init__(
            layout,
            score_kind,
            smoothing_sigma,
            likelihood_map,
            position_calibration,
            doubt,
        )
        self.components = components
        self.covariance_shrinkage = covariance_shrinkage
        _check_score(score_kind, components)
        if not components and position_calibration:
            self.positions.pop("anywhere")
        self.places = nn.ModuleList(
            PlaceDensity(*shape, cells, covariance_shrinkage) for shape in layout.levels
        )
        self.anywhere = LevelMixtures(
            [width for _, _, width in layout.levels],
            components,
            covariance_shrinkage,
            max_positions,
            seed,
        )
        self.resize(num_categories)

    @classmethod
    def built_from(
        cls, options: ModelOptions
    ) -> tuple[type[AnomalyModel], dict[str, Any]]:
        """Return this class, and its arguments, see :class:`AnomalyModel`."""
        assert isinstance(options, PaDiMOptions)
        _check_score(options.score_kind, options.components)
        return super().built_from(options)

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
        self.anywhere.resize(num_categories)

    def fit_levels(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit one category, in closed form; see :class:`FittedDensity`."""
        for index, level in enumerate(levels):
            self._place(index).fit(category, level)
        self.anywhere.fit(category, [level.flatten(1, 2) for level in levels])

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
        covariances are shrunk, which stays; the second expert's mixture takes one more
        step of the EM.
        """
        places = self._places_without(category, features, [rest for rest, _ in parts])
        anywhere = None
        if "anywhere" in names:
            anywhere = self.anywhere.levels_without(category, features, parts)
        for (_, rows), densities in zip(parts, places, strict=True):
            found = {
                "likelihood": [
                    density.log_likelihood(level.flatten(1, 2), 0).view(level.shape[:3])
                    for density, level in zip(
                        densities, (one[rows] for one in features), strict=True
                    )
                ]
            }
            if anywhere is not None:
                found["anywhere"] = next(anywhere)
            yield found

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

    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return how normal every position is, see :class:`AnomalyModel`."""
        if name != "anywhere":
            return super().normality_levels(name, latents, category)
        if not self.components:
            raise TrainingError(
                "padim has no map 'anywhere' without a second expert: build it with "
                "components = 10, or take another score"
            )

        def evaluate(features: list[Tensor], index: int) -> list[Tensor]:
            one = category.new_tensor([index])
            return [
                self.anywhere.log_likelihood(number, level.flatten(1, 2), one).view(
                    level.shape[:3]
                )
                for number, level in enumerate(features)
            ]

        return self.own_levels(name, latents, category, evaluate)


def _check_score(kind: str, components: int) -> None:
    """Refuse a score of a second expert that there is not."""
    if not components and "anywhere" in score_named(kind, PaDiM.maps).maps:
        raise RecipeError(
            f"score_kind = {kind!r} needs a second expert, and this padim has none: "
            "set components to its Gaussians, such as 10, or take another score"
        )
