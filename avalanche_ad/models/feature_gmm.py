"""The flow-free reference: a Gaussian mixture per category directly on the features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.density_model import LikelihoodMap
from avalanche_ad.models.fitted_density import FittedDensity, FittedDensityOptions
from avalanche_ad.models.gaussians import LevelMixtures
from avalanche_ad.registry.options import Positive

__all__ = ["FeatureGMM", "FeatureGMMOptions"]


class FeatureGMMOptions(FittedDensityOptions):
    """``[model]`` of type ``feature_gmm``: the flow-free reference, without epochs.

    >>> FeatureGMMOptions(components=10).covariance_shrinkage
    0.01
    """

    type: str = "feature_gmm"
    components: Positive = 1


class FeatureGMM(FittedDensity):
    """A full-covariance Gaussian mixture per category and level in feature space.

    Each category is fitted once and never touched again, so nothing is forgotten: the
    reference every flow has to beat. Fitted by scikit-learn's ``GaussianMixture``.

    >>> import torch
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
            layout,
            score_kind,
            smoothing_sigma,
            likelihood_map,
            position_calibration,
        )
        self.components = components
        self.covariance_shrinkage = covariance_shrinkage
        self.max_positions = max_positions
        self.seed = seed
        self._images: dict[int, int] = {}  # of each category fitted here
        self.mixtures = LevelMixtures(
            [width for _, _, width in layout.levels],
            components,
            covariance_shrinkage,
            max_positions,
            seed,
        )
        self.resize(num_categories)

    @property
    def num_categories(self) -> int:
        """Categories there is room for, seen or not."""
        return self.mixtures.level(0).num_categories

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories fitted so far, ascending."""
        return self.mixtures.level(0).categories

    def resize(self, num_categories: int) -> None:
        """Make room for categories without fitting them."""
        self.mixtures.resize(num_categories)

    def fit_levels(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit one category's mixtures, one per level; see :class:`FittedDensity`."""
        self.mixtures.fit(category, [level.flatten(1, 2) for level in levels])
        self._images[category] = len(levels[0])

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether the density is fitted anew for images held out.

        It is, unless it was fitted to more of them.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return self._images.get(category, 0) <= images

    def log_likelihood(
        self, index: int, x: Tensor, categories: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return log p(x|c) (N, P, C'), the same at all positions."""
        return self.mixtures.log_likelihood(index, x, categories)

    def likelihood_without(
        self,
        category: int,
        features: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[Mapping[str, list[Tensor]]]:
        """Yield what positions say under the mixtures of some images alone.

        See :class:`FittedDensity` and :meth:`LevelMixtures.without`.
        """
        yield from (
            {"likelihood": levels}
            for levels in self.mixtures.levels_without(category, features, parts)
        )
