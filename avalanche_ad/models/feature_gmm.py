"""The flow-free reference: a Gaussian mixture per category directly on the features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.base import MASKED, AnomalyModel
from avalanche_ad.models.category_mixtures import CategoryMixtures, fit_mixture
from avalanche_ad.models.latents import attach_latents
from avalanche_ad.models.scoring import LikelihoodMap, ScoreKind

__all__ = ["FeatureGMM"]


@dataclass(frozen=True)
class _FeatureLatents:
    """log p(x|c) per position, one (N, H, W, C_known) per level."""

    levels: list[Tensor]
    known: Tensor


class FeatureGMM(AnomalyModel):
    """A full-covariance Gaussian mixture per category and level in feature space.

    Each category is fitted once and never touched again, so nothing is forgotten: the
    reference every flow has to beat. Fitted by scikit-learn's ``GaussianMixture``.

    :param layout: shapes of the feature levels.
    :param num_categories: room made beforehand; more is made when categories arrive.
    :param components: Gaussians K per category and level.
    :param covariance_shrinkage: added to the diagonal, relative to the features'
        mean variance.
    :param max_positions: feature vectors per category and level used for fitting.
    :param score_kind: see :class:`AnomalyModel`; ``"likelihood"`` by default, since
        there is no entropy that training has shaped.
    :param smoothing_sigma: see :class:`AnomalyModel`.
    :param likelihood_map: see :class:`AnomalyModel`.
    :param seed: decides the positions drawn and the start of the EM.
    :param position_calibration: see :class:`AnomalyModel`.
    """

    def __init__(
        self,
        layout: FeatureLayout,
        num_categories: int = 0,
        components: int = 1,
        covariance_shrinkage: float = 1e-2,
        max_positions: int = 20_000,
        score_kind: ScoreKind = "likelihood",
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

    @torch.no_grad()
    def fit_category(self, category: int, packed: Tensor) -> None:
        """Fit one category's mixtures, one per level.

        :param category: category index.
        :param packed: its training features (N, layout.size).
        """
        self.resize(category + 1)
        generator = torch.Generator().manual_seed(self.seed * 1009 + category)
        features = torch.cat([self.packed(part) for part in torch.split(packed, 32)])
        for index, level in enumerate(self.layout.unpack(features)):
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

    def _level_log_likelihood(self, index: int, features: Tensor) -> Tensor:
        known = self.known_categories
        x = features.reshape(-1, features.shape[-1])
        likelihood = self._mixture(index).log_likelihood(x, known)
        return likelihood.view(*features.shape[:3], len(known))

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image, see :class:`AnomalyModel`.

        out_c = mean_l mean_p log p(x|c) / √D, every category equally likely.
        """
        levels = [
            self._level_log_likelihood(index, features)
            for index, features in enumerate(self.layout.unpack(self.packed(x)))
        ]
        output = x.new_full((len(x), self.num_categories), MASKED)
        known = self.known_categories
        if len(known):
            means = [
                level.mean((1, 2)) / math.sqrt(channels)
                for level, (_, _, channels) in zip(
                    levels, self.layout.levels, strict=True
                )
            ]
            output[:, known] = torch.stack(means).mean(0) - math.log(len(known))
        return attach_latents(output, _FeatureLatents(levels, known))

    def log_likelihood_levels(self, latents: object, category: Tensor) -> list[Tensor]:
        """Return log p(x|c)/D per position, one (N, H, W) per level."""
        assert isinstance(latents, _FeatureLatents)
        row = torch.searchsorted(latents.known, category)
        return [
            level[torch.arange(len(row)), :, :, row] / shape[2]
            for level, shape in zip(latents.levels, self.layout.levels, strict=True)
        ]

    def negative_entropy_levels(
        self, latents: object, category: Tensor
    ) -> list[Tensor]:
        """Return Σ_c p_c log p_c over the known categories, (N, H, W) per level."""
        assert isinstance(latents, _FeatureLatents)
        maps = []
        for level in latents.levels:
            log_p = level.log_softmax(-1)
            maps.append((log_p.exp() * log_p).sum(-1))
        return maps
