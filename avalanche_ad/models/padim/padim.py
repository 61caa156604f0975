"""A Gaussian for every position, of what it and its neighbours hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from avalanche_ad.errors import RecipeError, TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import MASKED, AnomalyModel
from avalanche_ad.models.batches import by_category
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.density_model import (
    DensityModel,
    DensityOptions,
    LikelihoodMap,
)
from avalanche_ad.models.gaussians import PlaceDensity, moments_without
from avalanche_ad.models.latents import attach_latents
from avalanche_ad.models.own_levels import OwnLevels, affinities, spread_positions
from avalanche_ad.models.padim.anywhere import Anywhere
from avalanche_ad.models.scores import score_named
from avalanche_ad.registry.options import Count, ModelOptions, NonNegative, Positive

__all__ = ["PaDiM", "PaDiMOptions"]


@dataclass
class _PlaceLatents:
    """Features (N, H, W, D) per level, and what they were evaluated to.

    ``every`` is log p(x|c) (N, H, W, C_known) per level, once all were asked for.
    """

    features: list[Tensor]
    known: Tensor
    every: list[Tensor] | None = None
    own: OwnLevels = field(default_factory=OwnLevels)
    anywhere: OwnLevels = field(default_factory=OwnLevels)


class PaDiMOptions(DensityOptions):
    """``[model]`` of type ``padim``: densities that know the place, without epochs.

    >>> PaDiMOptions(cells=4).components
    0
    """

    type: str = "padim"
    cells: Count = 8
    components: int = Field(0, ge=0)
    covariance_shrinkage: NonNegative = 1e-2
    max_positions: Positive = 20_000


class PaDiM(DensityModel):
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
    :raises RecipeError: for a score of a second expert that there is not.
    """

    kind = "padim"
    Options = PaDiMOptions
    maps = ("likelihood", "uncertainty", "anywhere")
    trained = False
    memory_kind = "statistics"

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
            layout, score_kind, smoothing_sigma, likelihood_map, position_calibration
        )
        self.components = components
        self.covariance_shrinkage = covariance_shrinkage
        _check_score(score_kind, components)
        if not components and position_calibration:
            self.positions.pop("anywhere")
        self._brought: dict[int, int] = {}  # images of each that an experience brought
        self.places = nn.ModuleList(
            PlaceDensity(*shape, cells, covariance_shrinkage) for shape in layout.levels
        )
        self.anywhere = Anywhere(
            [width for _, _, width in layout.levels],
            components,
            covariance_shrinkage,
            max_positions,
            seed,
        )
        # optimizers refuse a model without parameters
        self.placeholder = nn.Parameter(torch.zeros(0), requires_grad=False)
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

    # Fitting --------------------------------------------------------------------

    def fit_experience(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the categories that are new, or of which there are more images now.

        As of the first few of a category that arrived early, in a blurry stream. One
        that no experience brought, but a state or a call by hand, is left as it is.

        :param batches: minibatches (features (N, size), category indices (N,)).
        """
        known = set(self.known_categories.tolist())
        for category, features in by_category(batches).items():
            before = self._brought.get(category, len(features))
            if category not in known or len(features) > before:
                self.fit_category(category, features)
                self._brought[category] = len(features)

    @torch.no_grad()
    def fit_category(self, category: int, x: Tensor) -> None:
        """Fit one category.

        :param category: category index.
        :param x: its training features (N, layout.size).
        """
        self.resize(category + 1)
        features = torch.cat([self.features_of(part) for part in torch.split(x, 32)])
        levels = self.layout.unflatten(features)
        for index, level in enumerate(levels):
            self._place(index).fit(category, level)
        self.anywhere.fit(category, levels)

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether the density is fitted anew for images held out.

        It is, unless it was fitted to more of them.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return int(self._place(0).images[category]) <= images

    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[dict[str, Levels]]:
        """Yield what positions say under the density of some images alone.

        See :meth:`AnomalyModel.levels_without`. Exact, from sums over images, but for
        how far covariances are shrunk, which stays; the second expert's mixture takes
        one more step of the EM. The density stays as it is where it was fitted to more
        images than there are here.
        """
        if not self.holds_out_density(category, len(x)):
            yield from super().levels_without(category, x, parts, names)
            return
        features = self.layout.unflatten(self.features_of(x))
        known = self.known_categories
        column = int(torch.searchsorted(known, category))
        every = self._every(features, known) if "uncertainty" in names else None
        places = self._places_without(category, features, [rest for rest, _ in parts])
        anywhere = None
        if "anywhere" in names:
            anywhere = self.anywhere.levels_without(category, features, parts)
        for (_, rows), densities in zip(parts, places, strict=True):
            scored = [level[rows] for level in features]
            latents = _PlaceLatents(scored, known)
            chosen = torch.full((len(rows),), category, device=x.device)
            own = [
                density.log_likelihood(level.flatten(1, 2), 0).view(level.shape[:3])
                for density, level in zip(densities, scored, strict=True)
            ]
            latents.own.of(chosen, _given(own))
            if every is not None:
                latents.every = [level[rows] for level in every]
                for level, likelihood in zip(latents.every, own, strict=True):
                    level[..., column] = likelihood
            if anywhere is not None:
                latents.anywhere.of(chosen, _given(next(anywhere)))
            yield {name: self.normality_levels(name, latents, chosen) for name in names}

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

    # Densities ------------------------------------------------------------------

    def _every(
        self, features: Sequence[Tensor], categories: Tensor, few: bool = False
    ) -> list[Tensor]:
        """Return log p(x|c) (N, H, W, C') per level; (N, P, C') of few positions."""
        levels = []
        for index, level in enumerate(features):
            positions, x = None, level.flatten(1, 2)
            if few:
                positions = spread_positions(*level.shape[1:3]).to(x.device)
                x = x[:, positions]
            place = self._place(index)
            found = torch.stack(
                [
                    place.log_likelihood(x, category, positions)
                    for category in categories.tolist()
                ],
                -1,
            )
            levels.append(found.view(*(x if few else level).shape[:-1], -1))
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image, see :class:`DensityModel`.

        out_c = mean_l mean_p log p(x|c) / √D, every category equally likely. The mean
        is of a few positions where they tell the category
        (:func:`~avalanche_ad.models.own_levels.affinities`); at all of them only the
        density is evaluated that an image is scored by, when it is.
        """
        features = self.layout.unflatten(self.features_of(x))
        output = x.new_full((len(x), self.num_categories), MASKED)
        known = self.known_categories
        if len(known):
            roots = [math.sqrt(width) for _, _, width in self.layout.levels]

            def of_all(rows: Tensor, column: int) -> Tensor:
                some = [level[rows] for level in features]
                found = self._every(some, known[column, None])
                means = [
                    level.flatten(1).mean(1) / root
                    for level, root in zip(found, roots, strict=True)
                ]
                return torch.stack(means).mean(0)

            few = [
                level / root
                for level, root in zip(
                    self._every(features, known, few=True), roots, strict=True
                )
            ]
            output[:, known] = affinities(few, of_all) - math.log(len(known))
        return attach_latents(output, _PlaceLatents(features, known))

    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return how normal every position is, see :class:`AnomalyModel`."""
        if name != "anywhere":
            return super().normality_levels(name, latents, category)
        assert isinstance(latents, _PlaceLatents)
        if not self.components:
            raise TrainingError(
                "padim has no map 'anywhere' without a second expert: build it with "
                "components = 10, or take another score"
            )
        features = latents.features

        def evaluate(rows: Tensor, index: int) -> list[Tensor]:
            return self.anywhere.levels([level[rows] for level in features], index)

        return self._per_dimension(latents.anywhere.of(category, evaluate))

    def log_likelihood_levels(self, latents: object, category: Tensor) -> Levels:
        """Return log p(x|c)/D per position, one (N, H, W) per level."""
        assert isinstance(latents, _PlaceLatents)
        features = latents.features

        def evaluate(rows: Tensor, index: int) -> list[Tensor]:
            one = torch.tensor([index])
            found = self._every([level[rows] for level in features], one)
            return [level[..., 0] for level in found]

        return self._per_dimension(latents.own.of(category, evaluate))

    def _per_dimension(self, levels: Sequence[Tensor]) -> Levels:
        return [
            level / width
            for level, (_, _, width) in zip(levels, self.layout.levels, strict=True)
        ]

    def negative_entropy_levels(self, latents: object, category: Tensor) -> Levels:
        """Return Σ_c p_c log p_c over the known categories, (N, H, W) per level."""
        assert isinstance(latents, _PlaceLatents)
        if latents.every is None:
            latents.every = self._every(latents.features, latents.known)
        maps = []
        for level in latents.every:
            log_p = level.log_softmax(-1)
            maps.append((log_p.exp() * log_p).sum(-1))
        return maps


def _given(levels: list[Tensor]) -> Callable[[Tensor, int], list[Tensor]]:
    """Return what evaluates all images at once to levels that are there already."""
    return lambda _rows, _category: levels


def _check_score(kind: str, components: int) -> None:
    """Refuse a score of a second expert that there is not."""
    if not components and "anywhere" in score_named(kind, PaDiM.maps).maps:
        raise RecipeError(
            f"score_kind = {kind!r} needs a second expert, and this padim has none: "
            "set components to its Gaussians, such as 10, or take another score"
        )
