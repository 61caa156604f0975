"""What densities of features share that are fitted to each category once."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.batches import by_category, to_be_fitted
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.density_model import (
    DensityModel,
    DensityOptions,
    LikelihoodMap,
)
from avalanche_ad.models.latents import attach_latents
from avalanche_ad.models.own_levels import OwnLevels, affinities, spread_positions
from avalanche_ad.registry.options import NonNegative, Positive

__all__ = ["FeatureLatents", "FittedDensity", "FittedDensityOptions"]


class FittedDensityOptions(DensityOptions):
    """``[model]`` of every density that is fitted to each category once.

    >>> FittedDensityOptions(type="own").score_kind
    'likelihood'
    """

    covariance_shrinkage: NonNegative = 1e-2
    max_positions: Positive = 20_000


@dataclass
class FeatureLatents:
    """Features (N, H, W, D) per level, and what they were evaluated to.

    ``every`` is log p(x|c) (N, H, W, C_known) per level, once all were asked for;
    ``own`` what positions say under the category of each image, by map.

    >>> FeatureLatents([torch.zeros(1, 2, 2, 3)], torch.tensor([0])).every
    """

    features: list[Tensor]
    known: Tensor
    every: list[Tensor] | None = None
    own: dict[str, OwnLevels] = field(default_factory=lambda: defaultdict(OwnLevels))


class FittedDensity(DensityModel):
    """A density of features that is fitted to each category once.

    Nothing trains it, no category touches another, and so nothing is forgotten. A
    subclass says how it is fitted (:meth:`fit_levels`), what it says of positions
    (:meth:`log_likelihood`) and what it would say without some images
    (:meth:`likelihood_without`).

    An image's category is told by

        out_c = mean_l mean_p log p(x|c) / √D,

    every category equally likely. The mean is of a few positions where they tell the
    category (:func:`~avalanche_ad.models.own_levels.affinities`); at all of them only
    the density is evaluated that an image is scored by, when it is. While a subclass
    is trained by gradient, which moves no density, all known categories are alike.

    :param layout: see :class:`DensityModel`, like the other parameters.
    :param score_kind: ``"likelihood"`` by default, since there is no entropy that
        training has shaped.

    >>> from avalanche_ad import FeatureGMM
    >>> issubclass(FeatureGMM, FittedDensity), FittedDensity.trained
    (True, False)
    """

    trained = False
    memory_kind = "statistics"

    def __init__(
        self,
        layout: FeatureLayout,
        score_kind: str = "likelihood",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        position_calibration: bool = True,
    ) -> None:
        super().__init__(
            layout, score_kind, smoothing_sigma, likelihood_map, position_calibration
        )
        self._brought: dict[int, int] = {}  # images of each that an experience brought
        # optimizers refuse a model without parameters
        self.placeholder = nn.Parameter(torch.zeros(0), requires_grad=False)

    # What a density must say ----------------------------------------------------

    @abstractmethod
    def fit_levels(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit one category.

        :param category: category index, for which there is room.
        :param levels: its training features, one (N, H, W, D) per level.
        """

    @abstractmethod
    def log_likelihood(
        self, index: int, x: Tensor, categories: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return log p(x|c), (N, P, C').

        :param index: level.
        :param x: its features (N, P, D).
        :param categories: known ones (C',).
        :param positions: which of the H · W these are (P,), ``None`` for all.
        """

    @abstractmethod
    def likelihood_without(
        self,
        category: int,
        features: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[Mapping[str, list[Tensor]]]:
        """Yield what positions say under the density of some images alone.

        :param category: a category that has been learned.
        :param features: it was fitted to, one (N, H, W, D) per level.
        :param parts: rows to fit to, and rows (M,) to evaluate, of each part.
        :param names: of the maps wanted.
        :return: for each part, ``"likelihood"`` and what further maps are made of, one
            (M, H, W) per level.
        """

    # Fitting --------------------------------------------------------------------

    def fit_experience(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the categories that are new, or of which there are more images now.

        A category is fitted to its own training normals and not touched again. Where an
        experience brings more images of one than it was fitted to (its first few
        arrived early, in a blurry stream), it is fitted anew, to those alone; one that
        no experience brought, but a state or a call by hand, is left as it is.

        :param batches: minibatches (features (N, size), category indices (N,)).
        """
        known = self.known_categories.tolist()
        for category, x in to_be_fitted(
            by_category(batches), known, self._brought
        ).items():
            self.fit_category(category, x)
            self._brought[category] = len(x)

    @torch.no_grad()
    def fit_category(self, category: int, x: Tensor) -> None:
        """Fit one category.

        :param category: category index.
        :param x: its training features (N, layout.size).
        """
        self.resize(category + 1)
        features = torch.cat([self.features_of(part) for part in torch.split(x, 32)])
        self.fit_levels(category, self.layout.unflatten(features))

    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[dict[str, Levels]]:
        """Yield what positions say under the density of some images alone.

        See :meth:`AnomalyModel.levels_without`. The density stays as it is where it was
        fitted to more images than there are here.
        """
        if not self.holds_out_density(category, len(x)):
            yield from super().levels_without(category, x, parts, names)
            return
        features = self.layout.unflatten(self.features_of(x))
        known = self.known_categories
        column = int(torch.searchsorted(known, category))
        every = self._every(features, known) if "uncertainty" in names else None
        found = self.likelihood_without(category, features, parts, names)
        for (_, rows), own in zip(parts, found, strict=True):
            latents = FeatureLatents([level[rows] for level in features], known)
            chosen = torch.full((len(rows),), category, device=x.device)
            for name, levels in own.items():
                latents.own[name].of(chosen, partial(_given, levels))
            if every is not None:
                latents.every = [level[rows] for level in every]
                for level, likelihood in zip(
                    latents.every, own["likelihood"], strict=True
                ):
                    level[..., column] = likelihood
            yield {name: self.normality_levels(name, latents, chosen) for name in names}

    # Densities ------------------------------------------------------------------

    def _every(self, features: Sequence[Tensor], categories: Tensor) -> list[Tensor]:
        """Return log p(x|c) (N, H, W, C') per level."""
        return [
            self.log_likelihood(index, level.flatten(1, 2), categories, None).view(
                *level.shape[:3], -1
            )
            for index, level in enumerate(features)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image, see :class:`FittedDensity`."""
        features = self.layout.unflatten(self.features_of(x))
        output = x.new_full((len(x), self.num_categories), MASKED)
        known = self.known_categories
        if len(known):
            output[:, known] = self._affinities(features, known) - math.log(len(known))
        return attach_latents(output, FeatureLatents(features, known))

    def _affinities(self, features: Sequence[Tensor], known: Tensor) -> Tensor:
        """Return log-likelihoods of images (N, C_known), see :class:`FittedDensity`.

        :param features: one (N, H, W, D) per level.
        :param known: categories (C_known,), at least one.
        """
        if self.training and self.trained:
            return features[0].new_zeros(len(features[0]), len(known))
        roots = [math.sqrt(width) for _, _, width in self.layout.levels]

        def of_all(rows: Tensor, column: int) -> Tensor:
            some = [level[rows] for level in features]
            found = self._every(some, known[column, None])
            means = [
                (level / root).flatten(1).mean(1)
                for level, root in zip(found, roots, strict=True)
            ]
            return torch.stack(means).mean(0)

        few = []
        for index, level in enumerate(features):
            positions = spread_positions(*level.shape[1:3]).to(level.device)
            some = level.flatten(1, 2)[:, positions]
            found = self.log_likelihood(index, some, known, positions)
            few.append(found / roots[index])
        return affinities(few, of_all)

    def own_levels(
        self,
        name: str,
        latents: object,
        category: Tensor,
        evaluate: Callable[[list[Tensor], int], list[Tensor]],
    ) -> Levels:
        """Return what positions say under each image's category, (N, H, W) per level.

        :param name: of the map that it is of.
        :param latents: what :meth:`forward` attached to its output.
        :param category: index of the category each image is scored as, (N,).
        :param evaluate: given features of some images, one (M, H, W, D) per level, and
            their category, returns one (M, H, W) per level.
        """
        assert isinstance(latents, FeatureLatents)
        features = latents.features

        def of_rows(rows: Tensor, index: int) -> list[Tensor]:
            return evaluate([level[rows] for level in features], index)

        return latents.own[name].of(category, of_rows)

    def log_likelihood_levels(self, latents: object, category: Tensor) -> Levels:
        """Return log p(x|c)/D per position, one (N, H, W) per level."""
        assert isinstance(latents, FeatureLatents)
        if latents.every is not None:
            row = torch.searchsorted(latents.known, category)
            images = torch.arange(len(row))
            return self._per_dimension(
                [level[images, :, :, row] for level in latents.every]
            )

        def evaluate(features: list[Tensor], index: int) -> list[Tensor]:
            found = self._every(features, category.new_tensor([index]))
            return [level[..., 0] for level in found]

        levels = self.own_levels("likelihood", latents, category, evaluate)
        return self._per_dimension(levels)

    def _per_dimension(self, levels: Sequence[Tensor]) -> Levels:
        return [
            level / width
            for level, (_, _, width) in zip(levels, self.layout.levels, strict=True)
        ]

    def negative_entropy_levels(self, latents: object, category: Tensor) -> Levels:
        """Return Σ_c p_c log p_c over the known categories, (N, H, W) per level."""
        assert isinstance(latents, FeatureLatents)
        if latents.every is None:
            latents.every = self._every(latents.features, latents.known)
        maps = []
        for level in latents.every:
            log_p = level.log_softmax(-1)
            maps.append((log_p.exp() * log_p).sum(-1))
        return maps


def _given(levels: list[Tensor], _rows: Tensor, _category: int) -> list[Tensor]:
    """Stand in for an evaluation of all images at once that there is already."""
    return levels
