"""The flow-free reference: a Gaussian mixture per category directly on the features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.batches import by_category
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.density_model import (
    DensityModel,
    DensityOptions,
    LikelihoodMap,
)
from avalanche_ad.models.gaussians import (
    CategoryMixtures,
    component_log_likelihood,
    drawn_rows,
    fit_mixture,
    precision_roots,
    refitted,
)
from avalanche_ad.models.latents import attach_latents
from avalanche_ad.models.own_levels import OwnLevels, affinities, spread_positions
from avalanche_ad.registry.options import NonNegative, Positive

__all__ = ["FeatureGMM", "FeatureGMMOptions"]


@dataclass
class _FeatureLatents:
    """Features (N, H, W, D) per level, and what they were evaluated to.

    ``every`` is log p(x|c) (N, H, W, C_known) per level, once all were asked for.
    """

    features: list[Tensor]
    known: Tensor
    every: list[Tensor] | None = None
    own: OwnLevels = field(default_factory=OwnLevels)


class FeatureGMMOptions(DensityOptions):
    """``[model]`` of type ``feature_gmm``: the flow-free reference, without epochs.

    >>> FeatureGMMOptions(components=10).covariance_shrinkage
    0.01
    """

    type: str = "feature_gmm"
    components: Positive = 1
    covariance_shrinkage: NonNegative = 1e-2
    max_positions: Positive = 20_000


class FeatureGMM(DensityModel):
    """A full-covariance Gaussian mixture per category and level in feature space.

    Each category is fitted once and never touched again, so nothing is forgotten: the
    reference every flow has to beat. Fitted by scikit-learn's ``GaussianMixture``.

    >>> model = FeatureGMM(FeatureLayout(((4, 4, 2),)))
    >>> x = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    >>> model.fit_experience([(x, torch.zeros(8, dtype=torch.long))])
    >>> model(x).shape
    torch.Size([8, 1])

    :param layout: shapes of the feature levels.
    :param num_categories: room made beforehand; more is made when categories arrive.
    :param components: Gaussians K per category and level.
    :param covariance_shrinkage: added to the diagonal, relative to the features'
        mean variance.
    :param max_positions: feature vectors per category and level used for fitting.
    :param score_kind: see :class:`DensityModel`; ``"likelihood"`` by default, since
        there is no entropy that training has shaped.
    :param smoothing_sigma: see :class:`DensityModel`.
    :param likelihood_map: see :class:`DensityModel`.
    :param seed: decides the positions drawn and the start of the EM.
    :param position_calibration: see :class:`DensityModel`.
    """

    kind = "feature_gmm"
    Options = FeatureGMMOptions
    trained = False
    memory_kind = "statistics"

    def __init__(
        self,
        layout: FeatureLayout,
        num_categories: int = 0,
        components: int = 1,
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
        self.max_positions = max_positions
        self.seed = seed
        self._images: dict[int, int] = {}  # of each category fitted here
        self._brought: dict[int, int] = {}  # of each that an experience brought
        self.mixtures = nn.ModuleList(
            CategoryMixtures(channels, components) for _, _, channels in layout.levels
        )
        # optimizers refuse a model without parameters
        self.placeholder = nn.Parameter(torch.zeros(0), requires_grad=False)
        self.resize(num_categories)

    def _mixture(self, index: int) -> CategoryMixtures:
        mixture = self.mixtures[index]
        assert isinstance(mixture, CategoryMixtures)
        return mixture

    @property
    def num_categories(self) -> int:
        """Categories there is room for, seen or not."""
        return len(self._mixture(0).known)

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories fitted so far, ascending."""
        return self._mixture(0).categories

    def resize(self, num_categories: int) -> None:
        """Make room for categories without fitting them."""
        for index in range(len(self.mixtures)):
            self._mixture(index).resize(num_categories)

    def fit_experience(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the categories that are new, or of which there are more images now.

        A category is fitted to its own training normals and not touched again. Where an
        experience brings more images of one than it was fitted to (its first few
        arrived early, in a blurry stream), it is fitted anew, to those alone; one that
        no experience brought, but a state or a call by hand, is left as it is.

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
        """Fit one category's mixtures, one per level.

        :param category: category index.
        :param x: its training features (N, layout.size).
        """
        self.resize(category + 1)
        generator = torch.Generator().manual_seed(self.seed * 1009 + category)
        features = torch.cat([self.features_of(part) for part in torch.split(x, 32)])
        for index, level in enumerate(self.layout.unflatten(features)):
            mixture = fit_mixture(
                level.reshape(-1, level.shape[-1]),
                self.components,
                self.covariance_shrinkage,
                self.max_positions,
                generator,
                self.seed,
            )
            self._mixture(index).put(
                category,
                *(
                    torch.as_tensor(value)
                    for value in (
                        mixture.weights_,
                        mixture.means_,
                        mixture.precisions_cholesky_,
                    )
                ),
            )
        self._images[category] = len(features)

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether the density is fitted anew for images held out.

        It is, unless it was fitted to more of them.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return self._images.get(category, 0) <= images

    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[dict[str, Levels]]:
        """Yield what positions say under the category's mixture of some images alone.

        See :meth:`AnomalyModel.levels_without`. The mixture takes one more step of the
        EM, on those images alone: of one Gaussian that is the fit to them, of several
        the fit but for which Gaussian holds what, at a hundredth of its cost
        (:func:`~avalanche_ad.models.gaussians.refitted`). The density
        stays as it is where it was fitted to more images than there are here.
        """
        if not self.holds_out_density(category, len(x)):
            yield from super().levels_without(category, x, parts, names)
            return
        features = self.layout.unflatten(self.features_of(x))
        known = self.known_categories
        column = int(torch.searchsorted(known, category))
        whole = self._every(features, known) if "uncertainty" in names else None
        drawn = list(self._drawn(category, features))
        for rest, rows in parts:
            levels = []
            for index, (level, (vectors, image, shares)) in enumerate(
                zip(features, drawn, strict=True)
            ):
                used, scored = torch.isin(image, rest.to(image)), level[rows]
                fit = refitted(vectors[used], shares[used], self.covariance_shrinkage)
                mixture = CategoryMixtures(level.shape[-1], self.components).to(
                    x.device
                )
                mixture.put(0, fit.weight, fit.mean, precision_roots(fit.covariance))
                likelihood = _densities(mixture, scored, mixture.categories)
                if whole is not None:
                    others = whole[index][rows]
                    others[..., column] = likelihood[..., 0]
                    likelihood = others
                levels.append(likelihood)
            of = known[column, None] if whole is None else known
            latents = _FeatureLatents([level[rows] for level in features], of, levels)
            chosen = torch.full((len(rows),), category, device=x.device)
            yield {name: self.normality_levels(name, latents, chosen) for name in names}

    def _drawn(
        self, category: int, levels: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield, per level, the vectors that a category was fitted to.

        :return: vectors (P, D), the image of each (P,), and which Gaussian it is of, as
            far as the mixture can tell (P, K).
        """
        generator = torch.Generator().manual_seed(self.seed * 1009 + category)
        for index, level in enumerate(levels):
            x, mixture = level.flatten(0, 2), self._mixture(index)
            rows = drawn_rows(len(x), self.max_positions, generator).to(x.device)
            joint = component_log_likelihood(
                x[rows],
                mixture.log_weights[category],
                mixture.means[category],
                mixture.precision_roots[category],
            )
            image = rows // (level.shape[1] * level.shape[2])
            yield x[rows], image, joint.softmax(1)

    def _every(self, features: Sequence[Tensor], categories: Tensor) -> list[Tensor]:
        """Return log p(x|c) (N, …, C') of features (N, …, D) per level."""
        return [
            _densities(self._mixture(index), level, categories)
            for index, level in enumerate(features)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image, see :class:`DensityModel`.

        out_c = mean_l mean_p log p(x|c) / √D, every category equally likely. The mean
        is of a few positions where they tell the category
        (:func:`~avalanche_ad.models.own_levels.affinities`); at all of them only the
        mixture is evaluated that an image is scored by, when it is.
        """
        features = self.layout.unflatten(self.features_of(x))
        output = x.new_full((len(x), self.num_categories), MASKED)
        known = self.known_categories
        if len(known):
            few = [
                level.flatten(1, 2)[:, spread_positions(*level.shape[1:3])]
                for level in features
            ]

            def each(features: Sequence[Tensor], categories: Tensor) -> list[Tensor]:
                return [
                    level / math.sqrt(channels)
                    for level, (_, _, channels) in zip(
                        self._every(features, categories),
                        self.layout.levels,
                        strict=True,
                    )
                ]

            def of_all(rows: Tensor, column: int) -> Tensor:
                found = each([level[rows] for level in features], known[column, None])
                return torch.stack([level.flatten(1).mean(1) for level in found]).mean(
                    0
                )

            output[:, known] = affinities(each(few, known), of_all) - math.log(
                len(known)
            )
        return attach_latents(output, _FeatureLatents(features, known))

    def log_likelihood_levels(self, latents: object, category: Tensor) -> Levels:
        """Return log p(x|c)/D per position, one (N, H, W) per level."""
        assert isinstance(latents, _FeatureLatents)
        if latents.every is not None:
            row = torch.searchsorted(latents.known, category)
            levels = [
                level[torch.arange(len(row)), :, :, row] for level in latents.every
            ]
        else:
            features = latents.features

            def evaluate(rows: Tensor, index: int) -> list[Tensor]:
                found = self._every(
                    [level[rows] for level in features], rows.new_tensor([index])
                )
                return [level[..., 0] for level in found]

            levels = latents.own.of(category, evaluate)
        return [
            level / shape[2]
            for level, shape in zip(levels, self.layout.levels, strict=True)
        ]

    def negative_entropy_levels(self, latents: object, category: Tensor) -> Levels:
        """Return Σ_c p_c log p_c over the known categories, (N, H, W) per level."""
        assert isinstance(latents, _FeatureLatents)
        if latents.every is None:
            latents.every = self._every(latents.features, latents.known)
        maps = []
        for level in latents.every:
            log_p = level.log_softmax(-1)
            maps.append((log_p.exp() * log_p).sum(-1))
        return maps


def _densities(mixture: CategoryMixtures, x: Tensor, categories: Tensor) -> Tensor:
    """Return log p(x|c) (N, …, C') of feature vectors (N, …, D)."""
    found = mixture.log_likelihood(x.flatten(0, -2), categories)
    return found.view(*x.shape[:-1], len(categories))
