"""A Gaussian for every position, of what it and its neighbours hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from avalanche_ad.errors import RecipeError, TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.density_model import LikelihoodMap
from avalanche_ad.models.gaussians import LevelMixtures
from avalanche_ad.models.placed_density import PlacedDensity, PlacedDensityOptions
from avalanche_ad.models.scores import score_named
from avalanche_ad.registry.options import ModelOptions

__all__ = ["PaDiM", "PaDiMOptions"]


class PaDiMOptions(PlacedDensityOptions):
    """``[model]`` of type ``padim``: densities that know the place, without epochs.

    >>> PaDiMOptions(cells=4).components
    0
    """

    type: str = "padim"
    components: int = Field(0, ge=0)


class PaDiM(PlacedDensity):
    """A Gaussian for every position of a category and level.

    See :class:`PlacedDensity`. PaDiM (Defard et al., ICPR 2021, arXiv 2011.08785) has a
    covariance for each position alone.

    Each category is fitted once, in closed form, and never touched again: nothing is
    forgotten, and no image is kept.

    With ``components`` there is a second expert that knows no place, a mixture of so
    many Gaussians for all positions, which gives a map ``anywhere``; the score
    ``"product_of_experts"`` is of both.

    >>> import torch
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
    ) -> None:
        super().__init__(
            layout,
            cells,
            covariance_shrinkage,
            score_kind,
            smoothing_sigma,
            likelihood_map,
            position_calibration,
        )
        self.components = components
        _check_score(score_kind, components)
        if not components and position_calibration:
            self.positions.pop("anywhere")
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

    def resize(self, num_categories: int) -> None:
        """Make room for categories without fitting them."""
        super().resize(num_categories)
        self.anywhere.resize(num_categories)

    def fit_levels(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit one category, in closed form; see :class:`FittedDensity`."""
        super().fit_levels(category, levels)
        self.anywhere.fit(category, [level.flatten(1, 2) for level in levels])

    def likelihood_without(
        self,
        category: int,
        features: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[Mapping[str, list[Tensor]]]:
        """Yield what positions say under the density of some images alone.

        See :class:`PlacedDensity`; the second expert's mixture takes one more step of
        the EM.
        """
        places = super().likelihood_without(category, features, parts, names)
        if "anywhere" not in names:
            yield from places
            return
        anywhere = self.anywhere.levels_without(category, features, parts)
        for found, second in zip(places, anywhere, strict=True):
            yield {**found, "anywhere": second}

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

        return self._per_dimension(self.own_levels(name, latents, category, evaluate))


def _check_score(kind: str, components: int) -> None:
    """Refuse a score of a second expert that there is not."""
    if not components and "anywhere" in score_named(kind, PaDiM.maps).maps:
        raise RecipeError(
            f"score_kind = {kind!r} needs a second expert, and this padim has none: "
            "set components to its Gaussians, such as 10, or take another score"
        )
