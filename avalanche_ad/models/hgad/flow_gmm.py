"""The flow-GMM: per feature level a conditional flow and a hierarchical mixture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.density_model import LikelihoodMap
from avalanche_ad.models.hgad.earlier_states import updated
from avalanche_ad.models.hgad.flow import ConditionalFlow, FlowStart
from avalanche_ad.models.hgad.held_out import likelihoods_without
from avalanche_ad.models.hgad.latents import Latents, LevelLatents
from avalanche_ad.models.hgad.levels import MapsLevels
from avalanche_ad.models.hgad.mixture import (
    CenterInit,
    HierarchicalMixture,
    orthogonal_centers,
    pattern_centers,
    squared_distances,
)
from avalanche_ad.models.hgad.options import FlowGMMOptions
from avalanche_ad.models.hgad.training import TrainsAsHGAD, drawn_positions
from avalanche_ad.models.latents import attach_latents
from avalanche_ad.models.own_levels import affinities, spread_positions
from avalanche_ad.models.position_code import position_codes
from avalanche_ad.models.scoped_entropy import ScopedEntropy

__all__ = ["FlowGMM"]


class FlowGMM(MapsLevels, TrainsAsHGAD, ScopedEntropy):
    """HGAD's density model: normalizing flows into mixtures that grow by category.

    Per level: z = f(x; position) and J = log |det ∂f/∂x|, every spatial position a
    sample. The output is, with d_c = ‖z − μ_c‖² to the main centres,

        out_c = mean_l mean_p [−½ d_c − ½D log 2π + J] / √D + mean_l log_softmax(φ)_c

    where the division by √D keeps differences between categories at a few units. Where
    there are aligned mixtures, log p(z|c) of a category's takes the place of its
    Gaussian's, and the mean is of a few positions where they tell the category
    (:func:`~avalanche_ad.models.own_levels.affinities`): at all of them only the
    mixture is evaluated that an image is scored by, when it is.

    :param layout: shapes of the feature levels.
    :param num_categories: room made beforehand; more is made when categories arrive.
    :param couplings: coupling blocks per flow.
    :param hidden_ratio: width of the coupling networks relative to their input.
    :param clamp: bound of a coupling's log-scale.
    :param condition_channels: channels of the position code, 0 for no condition.
    :param flow_start: see :class:`~avalanche_ad.models.hgad.flow.ConditionalFlow`.
    :param centers_per_category: K.
    :param center_init: where new main centres start: ``"pattern"`` (HGAD's),
        ``"orthogonal"`` to the centres there are, or ``"data"`` (mean latent of the
        category's training images).
    :param pattern_period: period P of HGAD's pattern.
    :param position_fraction: share of the positions of each image that a training
        step sees, drawn by the minibatch's content, so that a teacher sees what its
        student sees; neighbours are much alike, so an eighth of them trains nearly as
        well as all. Minibatches of one image would show the same ones every time.
        With a ``kernel`` above 1 they are one window of the image.
    :param score_kind: see :class:`DensityModel`, as ``smoothing_sigma``,
        ``likelihood_map`` and ``position_calibration``.
    :param seed: decides initial weights and centres.
    :param categories_at_start: start all ``num_categories`` at once, for what needs
        outputs of one fixed meaning, such as distillation of the outputs of categories
        still to come. They may be inferred before they are learned; an image taken for
        one that never was is scored by the largest calibrated constant.
    :param kernel: positions a side that a coupling network sees, odd; HGAD sees one.

    Source: Yao et al., "Hierarchical Gaussian Mixture Normalizing Flow Modeling for
    Unified Anomaly Detection", ECCV 2024, arXiv 2403.13349.

    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2, condition_channels=8)
    >>> model.add_categories([0, 1])
    >>> model(torch.randn(3, 128)).shape
    torch.Size([3, 2])
    """

    kind = "flow_gmm"
    Options = FlowGMMOptions

    def __init__(
        self,
        layout: FeatureLayout,
        num_categories: int = 0,
        couplings: int = 12,
        hidden_ratio: float = 2.0,
        clamp: float = 1.9,
        condition_channels: int = 256,
        flow_start: FlowStart = "random",
        centers_per_category: int = 10,
        center_init: CenterInit = "pattern",
        pattern_period: int = 16,
        position_fraction: float = 1.0,
        score_kind: str = "product",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        seed: int = 0,
        categories_at_start: bool = False,
        position_calibration: bool = True,
        kernel: int = 1,
    ) -> None:
        super().__init__(
            layout, score_kind, smoothing_sigma, likelihood_map, position_calibration
        )
        if categories_at_start and center_init == "data":
            raise ValueError(
                "categories_at_start starts categories without data: expected "
                f"center_init 'pattern' or 'orthogonal', got {center_init!r}"
            )
        self.center_init = center_init
        self.pattern_period = pattern_period
        self.position_fraction = position_fraction
        self.kernel = kernel
        self.seed = seed
        self.categories_at_start = categories_at_start
        self.flows = nn.ModuleList()
        self.mixtures = nn.ModuleList()
        for index, (height, width, channels) in enumerate(layout.levels):
            level_seed = seed * 1009 + index
            self.flows.append(
                ConditionalFlow(
                    channels,
                    condition_channels,
                    couplings,
                    hidden_ratio,
                    clamp,
                    level_seed,
                    flow_start,
                    kernel,
                )
            )
            self.mixtures.append(
                HierarchicalMixture(channels, centers_per_category, level_seed)
            )
            code = position_codes(condition_channels, height, width)
            self.register_buffer(f"position_code_{index}", code, persistent=False)
        self.resize(num_categories)
        if categories_at_start:
            self.add_categories(range(num_categories))

    @property
    def starts_from_features(self) -> bool:  # type: ignore[override]
        """Whether new centres start at the mean latent of their category."""
        return self.center_init == "data"

    @property
    def num_categories(self) -> int:
        """Categories there is room for, seen or not."""
        return self._mixture(0).num_categories

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories started so far, ascending."""
        return self._mixture(0).known.nonzero().flatten()

    def resize(self, num_categories: int) -> None:
        """Make room for categories without starting them."""
        room = range(self.num_categories, num_categories)
        self._make_entropy_room(num_categories)
        for index in range(len(self.mixtures)):
            mixture = self._mixture(index)
            mixture.resize(num_categories)
            if self.center_init == "pattern":
                # among the initial weights, so that a reset to them finds them there
                mixture.place(
                    room, pattern_centers(room, mixture.dimensions, self.pattern_period)
                )
        self.alignment.resize(num_categories)

    @torch.no_grad()
    def add_categories(
        self, categories: Sequence[int], features: dict[int, Tensor] | None = None
    ) -> None:
        """Start the mixture groups of new categories.

        :param categories: category indices; those already known are left alone.
        :param features: features (N, size) of each new category, needed by
            ``center_init="data"`` alone.
        """
        known = set(self.known_categories.tolist())
        new = [category for category in categories if category not in known]
        if not new:
            return
        self.resize(max(new) + 1)
        if self.starts_from_features and set(new) - set(features or {}):
            raise ValueError(
                "center_init='data' needs the features of every new category"
            )
        for index in range(len(self.mixtures)):
            self._mixture(index).add(new, self._new_centers(index, new, features or {}))
            self.known_when_learned[new] = self._mixture(index).known

    def _new_centers(
        self, index: int, new: list[int], features: Mapping[int, Tensor]
    ) -> Tensor:
        """Return the main centres that categories start at, (C', D)."""
        mixture = self._mixture(index)
        if self.center_init == "pattern":
            return pattern_centers(new, mixture.dimensions, self.pattern_period)
        if self.center_init == "orthogonal":
            generator = torch.Generator().manual_seed(self.seed * 1009 + new[0])
            existing = mixture.centers[mixture.known, 0]
            return orthogonal_centers(existing, len(new), generator)
        means = []
        for category in new:
            total = mixture.centers.new_zeros(mixture.dimensions)
            for part in torch.split(features[category], 16):
                level = self.layout.unflatten(self.features_of(part))[index]
                total += self.latent_level(index, level)[0].mean(1).sum(0)
            means.append(total / len(features[category]))
        return torch.stack(means)

    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[dict[str, Levels]]:
        """Yield what positions say under the category's density of some images alone.

        See :meth:`AnomalyModel.levels_without`. A mixture that follows from statistics
        of features is made anew from those of these images
        (:func:`~avalanche_ad.models.hgad.held_out.likelihoods_without`). The flow stays
        as it is, and all else with it; so does the density where its statistics are of
        more images than there are here.
        """
        if "likelihood" not in names or not self.holds_out_density(category, len(x)):
            yield from super().levels_without(category, x, parts, names)
            return
        others = [name for name in names if name != "likelihood"]
        rest = super().levels_without(category, x, parts, others) if others else None
        for levels in likelihoods_without(self, category, x, parts):
            found = {"likelihood": levels} | (next(rest) if rest else {})
            yield {name: found[name] for name in names}

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image, see :class:`DensityModel`."""
        known = self.known_categories
        levels, outputs, few = [], [], []
        for index, features in enumerate(self.layout.unflatten(self.features_of(x))):
            mixture = self._mixture(index)
            count, height, width, dimensions = features.shape
            positions = None
            if self.training:
                positions = drawn_positions(
                    features, self.position_fraction, self.kernel
                )
            z, log_det = self.latent_level(index, features, positions)
            centers = mixture.centers[known]
            class_logits = mixture.class_logits[known]
            aligned = None
            if not self.training and len(self.alignment):
                aligned = self.alignment.mixture(index)
            constant = 0.5 * dimensions * math.log(2 * math.pi)
            scale, log_prior = math.sqrt(dimensions), class_logits.log_softmax(0)
            if aligned is None:
                distance = squared_distances(z, centers[:, 0]).mean(1)
                log_likelihood = -0.5 * distance - constant
                log_likelihood = log_likelihood + log_det.mean(1, keepdim=True)
                outputs.append(log_likelihood / scale + log_prior)
            else:
                some = spread_positions(height, width)
                distance = squared_distances(z[:, some], centers[:, 0])
                found = self.alignment.log_likelihood(index, z[:, some], known)
                found = torch.where(found.isnan(), -0.5 * distance - constant, found)
                found = found + log_det[:, some, None]
                few.append(found / scale + log_prior)
            grid = (height, width)
            if positions is not None:  # of a window, or in one row
                grid = (positions.numel() // positions.shape[-1], positions.shape[-1])
            levels.append(
                LevelLatents(
                    z.view(count, *grid, dimensions),
                    log_det.view(count, *grid),
                    centers,
                    class_logits,
                    mixture.inner_logits[known],
                    aligned,
                    self.alignment.mixture(index)
                    if self.alignment.trains_flow and len(self.alignment)
                    else None,
                )
            )
        output = x.new_full((len(x), self.num_categories), MASKED)
        latents = Latents(levels, known)
        joint = (
            affinities(few, latents.affinity) if few else torch.stack(outputs).mean(0)
        )
        output = output.index_copy(1, known, joint)
        self.note_features(output, latents)
        return attach_latents(output, latents)

    def log_likelihood_levels(self, latents: object, category: Tensor) -> Levels:
        """Return log p(x|c)/D per position, one (N, H, W) per level."""
        assert isinstance(latents, Latents)
        return latents.log_likelihood(category)

    def negative_entropy_levels(self, latents: object, category: Tensor) -> Levels:
        """Return Σ_c p_c log p_c over the main centres, (N, H, W) per level."""
        assert isinstance(latents, Latents)
        known = latents.known
        if self.entropy == "when_learned":
            return latents.negative_entropy(self.known_when_learned[category][:, known])
        found = latents.negative_entropy()
        if self.entropy == "log_categories":
            scale = math.log(max(len(known), 2))
            return [level / scale for level in found]
        return found

    # State ----------------------------------------------------------------------

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that contradicts itself, see :class:`LoadsWhole`."""
        super().check_state(state)
        rows = {len(mixture.get_buffer("known")) for mixture in self.mixtures}
        if len(rows) > 1:
            raise ValueError(
                f"the levels have mixtures for {sorted(rows)} categories: they have to "
                "be as many"
            )

    def updated_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state of an earlier version as this one has it."""
        return updated(self, state)
