"""What models share whose maps are likelihoods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.category_table import known_rows, own_or_borrowed, with_rows
from avalanche_ad.models.scores import score_named
from avalanche_ad.models.scoring import normality_map
from avalanche_ad.registry.options import ModelOptions

__all__ = ["DensityModel", "DensityOptions", "LikelihoodMap", "ScoreKind"]

ScoreKind = Literal["likelihood", "uncertainty", "product"]
LikelihoodMap = Literal["log", "probability"]


class DensityOptions(ModelOptions):
    """``[model]`` of every density model.

    >>> DensityOptions(type="own", likelihood_map="probability").score_kind
    'likelihood'
    """

    score_kind: str = "likelihood"
    likelihood_map: LikelihoodMap = "log"


class DensityModel(AnomalyModel):
    """A detector by the likelihood of features, a density for each category.

    ``model(x)`` gives joint log-likelihoods log p(x|c) + log π_c per image. Its maps,
    with v_l = log p(x|c)/D, at most the constants m_lc of :meth:`calibrate`, and L
    levels:

    - likelihood: L − G ∗ Σ_l U_l (1 + v_l − m_lc), or with exp(v_l − m_lc) under
      ``likelihood_map="probability"``
    - uncertainty: L − G ∗ Σ_l U_l exp(Σ_c p_c log p_c)

    or those of :meth:`AnomalyModel.score` with position calibration. HGAD's final score
    is the product of both, and its own scores are without position calibration. While
    the entropy of a known category is over itself alone there is nothing to be
    uncertain about, and every score is the likelihood, for all images, since their
    scores are compared.

    :param layout: see :class:`AnomalyModel`.
    :param score_kind: see :class:`AnomalyModel`.
    :param smoothing_sigma: see :class:`AnomalyModel`.
    :param likelihood_map: how v = log p(x|c)/D − m enters the map: ``"log"``, as 1 + v,
        or ``"probability"``, HGAD's exp(v). They agree to first order near v = 0; far
        below, where all of a forgotten category lies, exp(v) underflows to one value
        and loses the order that v keeps.
    :param position_calibration: see :class:`AnomalyModel`.

    >>> from avalanche_ad import FeatureGMM
    >>> model = FeatureGMM(FeatureLayout(((2, 2, 2),)))
    >>> x, y = torch.randn(8, 8), torch.zeros(8, dtype=torch.long)
    >>> model.fit_experience([(x, y)])
    >>> model.calibrate([(x, y)])
    >>> model.score(model(x), (16, 16)).maps.shape
    torch.Size([8, 16, 16])
    """

    maps: ClassVar[tuple[str, ...]] = ("likelihood", "uncertainty")
    level_maximum: Tensor

    def __init__(
        self,
        layout: FeatureLayout,
        score_kind: str = "product",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        position_calibration: bool = True,
    ) -> None:
        super().__init__(layout, score_kind, smoothing_sigma, position_calibration)
        self.likelihood_map = likelihood_map
        self.register_buffer("level_maximum", torch.zeros(0, len(layout.levels)))

    @property
    def category_tables(self) -> tuple[str, ...]:
        """Names of the model's own tensors that have a row a category."""
        return ("level_maximum",)

    @abstractmethod
    def log_likelihood_levels(self, latents: object, category: Tensor) -> Levels:
        """Return log p(x|c)/D per position, one (N, H, W) per level.

        :param latents: what :meth:`forward` attached to its output.
        :param category: index of the category of each image, (N,).
        """

    @abstractmethod
    def negative_entropy_levels(self, latents: object, category: Tensor) -> Levels:
        """Return Σ_c p_c log p_c over the known categories, (N, H, W) per level.

        :param latents: what :meth:`forward` attached to its output.
        :param category: index of the category each image is scored as, (N,).
        """

    def alternatives(self, category: Tensor) -> Tensor:
        """Return over how many categories each image's entropy is taken, (N,).

        :param category: index of the category each image is scored as, (N,).
        """
        return torch.full_like(category, len(self.known_categories))

    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return how normal every position is, see :class:`AnomalyModel`."""
        if name == "likelihood":
            return self.log_likelihood_levels(latents, category)
        found = self.negative_entropy_levels(latents, category)
        return [level.exp() for level in found]

    def map_of(
        self, name: str, levels: Levels, category: Tensor, mask_size: tuple[int, int]
    ) -> Tensor:
        """Return a map without position calibration, (N, H, W)."""
        if name == "likelihood":
            known = known_rows(self.level_maximum)
            most = own_or_borrowed(self.level_maximum, category, known.amax(0))
            levels = [
                self._transform(level - most[:, index, None, None])
                for index, level in enumerate(levels)
            ]
        return len(levels) - normality_map(levels, mask_size, self.smoothing_sigma)

    def _transform(self, level: Tensor) -> Tensor:
        # above the likeliest training position there is nothing left to be normal about
        level = level.clamp(max=0.0)
        return level.exp() if self.likelihood_map == "probability" else 1 + level

    # Constants ------------------------------------------------------------------

    def has_constants(self, name: str) -> bool:
        """Whether a map has constants: the likelihood always has."""
        return name == "likelihood" or super().has_constants(name)

    def calibrated(self, name: str) -> bool:
        """Whether a map's constants have been taken, or it has none."""
        if name == "likelihood":
            return bool(len(known_rows(self.level_maximum)))
        return super().calibrated(name)

    def constants(self, categories: Sequence[int]) -> Tensor:
        """Return the largest log p(x|c)/D of the normals of categories, (C, L)."""
        return self.level_maximum[list(categories)]

    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the scores' constants from training normals.

        Per level l and category c the constant m_lc is the largest log p(x|c)/D over
        all positions of the category's images given here; a category that never had an
        image borrows the largest. The rest is :meth:`AnomalyModel.calibrate`'s.

        :param batches: minibatches (features (N, size), category indices (N,)).
        """
        super().calibrate(batches)
        self.level_maximum = with_rows(self.level_maximum, {}, self.num_categories)

    def put_constants(self, category: int, normality: Mapping[str, Levels]) -> None:
        """Set a category's constants from what its normals' positions say, by map."""
        if "likelihood" in normality:
            best = torch.stack([level.amax() for level in normality["likelihood"]])
            self.level_maximum = with_rows(self.level_maximum, {category: best})
        super().put_constants(category, normality)

    def _usable(self, kind: str) -> str:
        """Return the likelihood where there is nothing to be uncertain about."""
        uncertain = "uncertainty" in score_named(kind, self.maps).maps
        if uncertain and bool((self.alternatives(self.known_categories) < 2).any()):
            return "likelihood"
        return kind
