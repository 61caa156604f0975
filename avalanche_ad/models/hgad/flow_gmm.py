"""The flow-GMM: per feature level a conditional flow and a hierarchical mixture."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.alignment.mixtures import (
    ALIGNED_COVARIANCES,
    AlignedCovariance,
    grouped_moments,
    kept_covariance,
    pushed_moments,
)
from avalanche_ad.models.anomaly_model import MASKED, AnomalyModel, evaluating, seeded
from avalanche_ad.models.gaussians import (
    CategoryMixtures,
    FeatureStatistics,
    Moments,
    precision_roots,
)
from avalanche_ad.models.hgad.flow import ConditionalFlow, FlowStart, position_code
from avalanche_ad.models.hgad.mixture import (
    CenterInit,
    HierarchicalMixture,
    category_log_likelihood,
    inner_centers,
    orthogonal_centers,
    pattern_centers,
    squared_distances,
)
from avalanche_ad.models.latents import Latents, LevelLatents, attach_latents
from avalanche_ad.models.loading import replaced
from avalanche_ad.models.scoring import LikelihoodMap, ScoreKind, negative_entropy

__all__ = ["ENTROPY_SCOPES", "EntropyScope", "FlowGMM"]

EntropyScope = Literal["known", "when_learned", "log_categories"]
ENTROPY_SCOPES: tuple[EntropyScope, ...] = ("known", "when_learned", "log_categories")

_FAR = 1e9  # a squared distance whose posterior is 0, its logarithm finite


class FlowGMM(AnomalyModel):
    """HGAD's density model: normalizing flows into mixtures that grow by category.

    Per level: z = f(x; position) and J = log |det ∂f/∂x|, every spatial position a
    sample. The output is, with d_c = ‖z − μ_c‖² to the main centres,

        out_c = mean_l mean_p [−½ d_c − ½D log 2π + J] / √D + mean_l log_softmax(φ)_c

    where the division by √D keeps differences between categories at a few units.

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
    :param score_kind: see :class:`AnomalyModel`.
    :param smoothing_sigma: see :class:`AnomalyModel`.
    :param likelihood_map: see :class:`AnomalyModel`.
    :param seed: decides initial weights and centres.
    :param categories_at_start: start all ``num_categories`` at once, which says how
        many will come: what needs outputs of one fixed meaning, such as distillation
        of the outputs of categories still to come. They are known from then on, take
        part in the posterior and may be inferred before they are learned; an image
        taken for one that never was is judged by the largest calibrated constant.
    :param position_calibration: see :class:`AnomalyModel`.

    Source: Yao et al., "Hierarchical Gaussian Mixture Normalizing Flow Modeling for
    Unified Anomaly Detection", ECCV 2024, arXiv 2403.13349.

    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2, condition_channels=8)
    >>> model.add_categories([0, 1])
    >>> model(torch.randn(3, 128)).shape
    torch.Size([3, 2])
    """

    entropy_code: Tensor
    known_when_learned: Tensor
    statistics: FeatureStatistics | None

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
        score_kind: ScoreKind = "product",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        seed: int = 0,
        categories_at_start: bool = False,
        position_calibration: bool = True,
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
        self.register_buffer("entropy_code", torch.tensor(0))
        self.register_buffer("known_when_learned", torch.zeros(0, 0, dtype=torch.bool))
        self.seed = seed
        self.categories_at_start = categories_at_start
        self.flows = nn.ModuleList()
        self.mixtures = nn.ModuleList()
        self.aligned = nn.ModuleList()
        self.alignment: tuple[int, AlignedCovariance, int] | None = None
        self.register_module("statistics", None)
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
                )
            )
            self.mixtures.append(
                HierarchicalMixture(channels, centers_per_category, level_seed)
            )
            code = (
                position_code(condition_channels, height, width)
                .flatten(1)
                .T.contiguous()
                if condition_channels
                else torch.zeros(height * width, 0)
            )
            self.register_buffer(f"position_code_{index}", code, persistent=False)
        self.resize(num_categories)
        if categories_at_start:
            self.add_categories(range(num_categories))

    @property
    def num_categories(self) -> int:
        """Categories there is room for, seen or not."""
        return int(self.mixtures[0].num_categories)  # type: ignore[arg-type]

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories started so far, ascending."""
        return self.mixtures[0].known.nonzero().flatten()  # type: ignore[operator]

    @property
    def entropy(self) -> EntropyScope:
        """Which entropy the uncertainty is made of; part of the saved state.

        ``"known"``: over all categories known, as HGAD's. It rises with every category
        that is added. ``"log_categories"``: the same, divided by log C.
        ``"when_learned"``: over those known when the image's category was started, its
        own experience's and earlier ones, so that later ones leave it alone.
        """
        return ENTROPY_SCOPES[int(self.entropy_code)]

    @entropy.setter
    def entropy(self, scope: EntropyScope) -> None:
        if scope not in ENTROPY_SCOPES:
            raise ValueError(
                f"expected entropy as one of {', '.join(ENTROPY_SCOPES)}, got {scope!r}"
            )
        self.entropy_code.fill_(ENTROPY_SCOPES.index(scope))

    def resize(self, num_categories: int) -> None:
        """Make room for categories without starting them."""
        room = range(self.num_categories, num_categories)
        if len(room):
            new = len(room)
            self.known_when_learned = F.pad(self.known_when_learned, (0, new, 0, new))
        for mixture in self.mixtures:
            assert isinstance(mixture, HierarchicalMixture)
            mixture.resize(num_categories)
            if self.center_init == "pattern":
                # among the initial weights, so that a reset to them finds them there
                mixture.place(
                    room, pattern_centers(room, mixture.dimensions, self.pattern_period)
                )
        for aligned in self.aligned:
            aligned.resize(num_categories)  # type: ignore[operator]

    @torch.no_grad()
    def add_categories(
        self, categories: Sequence[int], features: dict[int, Tensor] | None = None
    ) -> None:
        """Start the mixture groups of new categories.

        :param categories: category indices; those already known are left alone.
        :param features: packed features (N, size) of each new category, needed by
            ``center_init="data"`` alone.
        """
        known = set(self.known_categories.tolist())
        new = [category for category in categories if category not in known]
        if not new:
            return
        self.resize(max(new) + 1)
        means: list[list[Tensor]] = []
        if self.center_init == "data":
            if features is None or set(new) - set(features):
                raise ValueError(
                    "center_init='data' needs the features of every new category"
                )
            means = [self._mean_latents(features[category]) for category in new]
        for index, mixture in enumerate(self.mixtures):
            assert isinstance(mixture, HierarchicalMixture)
            if self.center_init == "pattern":
                main = pattern_centers(new, mixture.dimensions, self.pattern_period)
            elif self.center_init == "orthogonal":
                generator = torch.Generator().manual_seed(self.seed * 1009 + new[0])
                existing = mixture.centers[mixture.known, 0]
                main = orthogonal_centers(existing, len(new), generator)
            else:
                main = torch.stack([of_category[index] for of_category in means])
            mixture.add(new, main)
            self.known_when_learned[new] = mixture.known

    def _mean_latents(self, x: Tensor) -> list[Tensor]:
        """Return the mean latent (D,) of every level over images."""
        totals = [torch.zeros(level[2]).to(x) for level in self.layout.levels]
        for part in torch.split(x, 16):
            for index, level in enumerate(self.layout.unpack(self.packed(part))):
                totals[index] += self.latent_level(index, level)[0].mean(1).sum(0)
        return [total / len(x) for total in totals]

    def latent_level(
        self, index: int, features: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Push one level's features through its flow.

        :param index: level.
        :param features: (N, H, W, D).
        :param positions: indices (P,) of the positions wanted, all of H·W by default.
        :return: latents (N, P, D) and log-determinants (N, P).
        """
        x = features.flatten(1, 2)
        code: Tensor = getattr(self, f"position_code_{index}")
        if positions is not None:
            x, code = x[:, positions], code[positions]
        count, width, channels = x.shape
        condition = code.repeat(count, 1) if code.shape[1] else None
        z, log_det = self.flows[index](x.reshape(-1, channels), condition)
        return z.view(count, width, channels), log_det.view(count, width)

    @torch.no_grad()
    def latents_at(
        self, index: int, x: Tensor, positions: Tensor, flow: nn.Module | None = None
    ) -> Tensor:
        """Return where feature vectors are mapped to, without a graph.

        :param index: level.
        :param x: (P, D).
        :param positions: of each vector, indices (P,) into the level's H·W positions.
        :param flow: another flow than the level's own, one of before.
        :return: (P, D).
        """
        flow = self.flows[index] if flow is None else flow
        z: Tensor = flow(x, self.condition(index, positions))[0]
        return z

    def condition(self, index: int, positions: Tensor) -> Tensor | None:
        """Return what a level's flow is conditioned on.

        :param index: level.
        :param positions: indices (P,) into the level's H·W positions.
        :return: (P, condition_channels), ``None`` where the flow has no condition.
        """
        code: Tensor = getattr(self, f"position_code_{index}")
        return code[positions] if code.shape[1] else None

    @torch.no_grad()
    def sample_level(
        self,
        index: int,
        categories: Tensor,
        positions: Tensor,
        generator: torch.Generator | None = None,
        inner: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Draw latents of one level and the features that the flow maps to them.

        Per row k ~ softmax(ψ_c), z ~ N(μ_ck, I), x = f⁻¹(z; position). HGAD fits a
        category by its main Gaussian N(μ_c, I) and by its inner mixture, separately:
        while the inner mixture has been trained for a few epochs only, its initial
        offsets make it too wide, and the main Gaussian gives the better samples.

        :param index: level.
        :param categories: known category indices (P,).
        :param positions: indices (P,) into the level's H·W positions.
        :param generator: source of the draws, on the model's device.
        :param inner: draw from the inner mixture; else z ~ N(μ_c, I).
        :return: latents z (P, D) and features x (P, D).
        """
        mixture, flow = self.mixtures[index], self.flows[index]
        assert isinstance(mixture, HierarchicalMixture)
        if inner:
            weights = mixture.inner_logits[categories].softmax(-1)
            drawn = torch.multinomial(weights, 1, generator=generator).squeeze(1)
            centers = inner_centers(mixture.centers)[categories, drawn]
        else:
            centers = mixture.centers[categories, 0]
        noise = torch.randn(centers.shape, generator=generator, device=centers.device)
        z = centers + noise
        x: Tensor = flow.inverse(z, self.condition(index, positions))  # type: ignore[operator]
        return z, x

    def sample(
        self,
        categories: Tensor,
        generator: torch.Generator | None = None,
        inner: bool = True,
    ) -> Tensor:
        """Draw packed features of given categories by inverting the flows.

        :param categories: known category indices (N,).
        :param generator: source of the draws, on the model's device.
        :param inner: see :meth:`sample_level`.
        :return: packed features (N, layout.size); positions are drawn independently,
            since the model's density has no dependence between them.
        """

        def draw(index: int, categories: Tensor, positions: Tensor) -> Tensor:
            return self.sample_level(index, categories, positions, generator, inner)[1]

        return self.layout.draw(categories, draw)

    def generate(self, batch_size: int) -> Tensor:
        """Draw packed features of categories drawn evenly from the known ones.

        The method that Avalanche's generative replay expects of a generator; from the
        main Gaussians, see :meth:`sample_level`.

        :param batch_size: N.
        :return: packed features (N, layout.size).
        """
        known = self.known_categories
        rows = torch.randint(len(known), (batch_size,), device=known.device)
        return self.sample(known[rows], inner=False)

    def align(self, components: int) -> nn.ModuleList:
        """Return the aligned mixtures, one per level, made empty where there are none.

        A category that has one is judged by it in evaluation: its likelihood, and the
        likelihood that its images' category is inferred from. HGAD's losses know
        HGAD's mixtures alone; ``FlowGMMLoss.aligned`` is the loss that knows these.

        :param components: K of every mixture; another than before starts anew.
        """
        self.alignment = None
        first = next(iter(self.aligned), None)
        if first is None or first.get_buffer("log_weights").shape[1] != components:
            self.aligned = self._mixtures_of(components)
        for mixture in self.aligned:
            mixture.resize(self.num_categories)  # type: ignore[operator]
        return self.aligned

    def _mixtures_of(self, components: int) -> nn.ModuleList:
        """Return empty aligned mixtures, one per level."""
        return nn.ModuleList(
            CategoryMixtures(channels, components).to(self.level_maximum)
            for _, _, channels in self.layout.levels
        )

    def align_to_statistics(
        self, samples: int, covariance: AlignedCovariance = "full", seed: int = 0
    ) -> None:
        """Align all categories that have statistics to where the flow maps those.

        ``alignment`` then holds these arguments and says that the mixtures follow from
        flow and statistics: a learner need not keep them from one experience to the
        next. They are saved all the same, since they judge.

        :param samples: per category and level, see :meth:`statistical_moments`.
        :param covariance: what is kept of the covariances.
        :param seed: of the samples.
        """
        assert self.statistics is not None
        mixtures = self.align(self.statistics.components)
        with evaluating(self):
            for category in self.statistics.categories.tolist():
                with seeded(seed * 1009 + category):
                    for index, mixture in enumerate(mixtures):
                        found = self.statistical_moments(index, category, samples)
                        kept = kept_covariance(found.covariance, covariance)
                        roots = precision_roots(kept)
                        mixture.put(category, found.weight, found.mean, roots)  # type: ignore[operator]
        self.alignment = (samples, covariance, seed)

    def statistical_latents(
        self, index: int, category: int, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return samples of a category's statistics, and where the flow maps them.

        :param index: level.
        :param category: category with statistics.
        :param count: how many samples.
        :return: x (count, D), latents (count, D), and the component each sample was
            drawn from (count,).
        """
        assert self.statistics is not None
        device = self.level_maximum.device
        height, width, _ = self.layout.levels[index]
        categories = torch.full((count,), category, device=device)
        positions = torch.randint(height * width, (count,)).to(device)
        x, component = self.statistics.sample_level(index, categories, positions)
        return x, self.latents_at(index, x, positions), component

    def statistical_moments(self, index: int, category: int, count: int) -> Moments:
        """Return the moments of a category's statistics under the flow as it is.

        :param index: level.
        :param category: category with statistics.
        :param count: how many samples judge the flow, see
            :func:`~avalanche_ad.models.alignment.mixtures.pushed_moments`.
        :return: weights that sum to 1, means (K, D), covariances (K, D, D), in double.
        """
        assert self.statistics is not None
        x, z, component = self.statistical_latents(index, category, count)
        gaussians = self.statistics.gaussians(index, category)
        if gaussians is None:
            return grouped_moments(z, component, self.statistics.components)
        return pushed_moments(gaussians, x, z, component)

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether the density is fitted anew for images held out.

        So it is where mixtures follow from statistics, unless those are of more images:
        the flow is trained on samples and images of all, but what it has of a single
        one is little beside the mixture.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return (
            self.score_kind != "uncertainty"  # which is of the flow's own mixture
            and self.statistics is not None
            and self.alignment is not None
            and int(self.statistics.images[category]) <= images
        )

    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        kinds: Sequence[str],
    ) -> Iterator[dict[str, list[Tensor]]]:
        """Yield what positions say under the category's density of some images alone.

        See :meth:`AnomalyModel.levels_without`. A mixture that follows from statistics
        of features is made anew from those of these images, for the images left out;
        those it is still made of are judged by the mixture as it is, which a few
        images less change little, at most of the cost. The flow stays as it is, and all
        else with it; so does the density where its statistics are of more images than
        there are here.
        """
        statistics = self.statistics
        if (
            statistics is None
            or self.alignment is None
            or "likelihood" not in kinds
            or not self.holds_out_density(category, len(x))
        ):
            yield from super().levels_without(category, x, parts, kinds)
            return
        samples, form, seed = self.alignment
        shapes = [(height, width) for height, width, _ in self.layout.levels]
        latents: list[list[tuple[Tensor, Tensor]]] = []
        for part in torch.split(x, 32):
            unpacked = self.layout.unpack(self.packed(part))
            latents.append(
                [
                    self.latent_level(index, level)
                    for index, level in enumerate(unpacked)
                ]
            )
        joined = [
            tuple(torch.cat(tensors) for tensors in zip(*level, strict=True))
            for level in zip(*latents, strict=True)
        ]
        rest_of: Iterator[dict[str, list[Tensor]]] | None = None
        if others := [kind for kind in kinds if kind != "likelihood"]:
            rest_of = super().levels_without(category, x, parts, others)
        own = torch.tensor([category], device=x.device)
        as_it_is = [
            self._densities(self.aligned[index], own, *level)
            for index, level in enumerate(joined)
        ]
        every = statistics.without(
            category, self.packed(x), [rest for rest, _ in parts]
        )
        for (rest, rows), without in zip(parts, every, strict=True):
            held = ~torch.isin(rows, rest)
            levels = []
            with self._statistics_of(without), seeded(seed * 1009 + category):
                for index, (z, log_det) in enumerate(joined):
                    found = self.statistical_moments(index, category, samples)
                    kept = kept_covariance(found.covariance, form)
                    mixture = CategoryMixtures(z.shape[-1], statistics.components)
                    mixture.to(x.device).put(
                        0, found.weight, found.mean, precision_roots(kept)
                    )
                    level = as_it_is[index][rows]
                    level[held] = self._densities(
                        mixture, own * 0, z[rows[held]], log_det[rows[held]]
                    )
                    levels.append(level.view(len(rows), *shapes[index]))
            # in the order of the kinds, which the score's product has
            found_kinds = {"likelihood": levels} | (next(rest_of) if rest_of else {})
            yield {kind: found_kinds[kind] for kind in kinds}

    @staticmethod
    def _densities(
        mixture: nn.Module, category: Tensor, z: Tensor, log_det: Tensor
    ) -> Tensor:
        """Return log p(x|c)/D (N, P) of latents (N, P, D) under one's mixture."""
        assert isinstance(mixture, CategoryMixtures)
        density = mixture.log_likelihood(z.flatten(0, 1), category)
        return (density.view(log_det.shape) + log_det) / z.shape[-1]

    @contextmanager
    def _statistics_of(self, statistics: FeatureStatistics) -> Iterator[None]:
        """Let the statistics be others for a while."""
        own, self.statistics = self.statistics, statistics
        try:
            yield
        finally:
            self.statistics = own

    def _aligned_log_likelihood(
        self, index: int, z: Tensor, known: Tensor
    ) -> Tensor | None:
        """Return log p(z|c) (N, P, C) under the aligned mixtures, nan without one."""
        mixture = self._aligned_mixture(index)
        if self.training or mixture is None:
            return None
        mixture.resize(self.num_categories)
        has = mixture.known[known]
        rows = z.flatten(0, 1)
        found = rows.new_full((len(rows), len(known)), torch.nan)
        found[:, has] = mixture.log_likelihood(rows, known[has])
        return found.view(*z.shape[:2], len(known))

    def _aligned_mixture(self, index: int) -> CategoryMixtures | None:
        if not len(self.aligned):
            return None
        mixture = self.aligned[index]
        assert isinstance(mixture, CategoryMixtures)
        return mixture

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has, see :class:`LoadsWhole`."""
        whole = any(name.startswith("mixtures.") for name in state)
        if whole or "statistics.means_0" in state:
            self.statistics = self._statistics_for(state)
        means = state.get("aligned.0.means")
        if means is not None:
            first = next(iter(self.aligned), None)
            if first is None or first.get_buffer("means").shape[1] != means.shape[1]:
                self.aligned = self._mixtures_of(means.shape[1])
        elif whole:
            self.aligned = nn.ModuleList()
        seen = state.get("known_when_learned")
        if seen is not None and seen.shape != self.known_when_learned.shape:
            replaced(self, "known_when_learned", torch.Size([len(seen)] * 2))
        super().make_room(state)

    def _statistics_for(self, state: Mapping[str, Tensor]) -> FeatureStatistics | None:
        """Return statistics of the form that a state's have, the own where they fit."""
        if "statistics.means_0" not in state:
            return None
        like = FeatureStatistics.like(self.layout, state)
        own = self.statistics
        if own is not None and all(
            buffer.shape[1:] == new.shape[1:]
            for buffer, new in zip(own.buffers(), like.buffers(), strict=True)
        ):
            return own
        return like.to(self.level_maximum.device)

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a state that contradicts itself, see :class:`LoadsWhole`."""
        super().check_state(state)
        if len(self.known_when_learned) != self.num_categories:
            raise ValueError(
                f"known_when_learned is of {len(self.known_when_learned)} categories, "
                f"the mixtures of {self.num_categories}"
            )
        code = int(state["entropy_code"])
        if not 0 <= code < len(ENTROPY_SCOPES):
            raise ValueError(
                f"entropy_code: expected 0 to {len(ENTROPY_SCOPES) - 1}, got {code}"
            )

    def state_accepted(self, state: Mapping[str, Tensor]) -> None:
        """Forget how the mixtures there were had been made."""
        self.alignment = None

    def updated_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Make what earlier versions saved as the way to make it.

        Mixtures aligned to statistics were left out of a state then; ``derivation``
        held samples, index of the covariance and seed, -1 for other mixtures.
        """
        how = state.pop("derivation", None)
        if how is None or bool((how == -1).all()):
            return state
        twin = copy.deepcopy(self)
        twin.load_state_dict(state)
        samples, form, seed = (int(value) for value in how.tolist())
        covariances = dict(enumerate(ALIGNED_COVARIANCES))
        if twin.statistics is None or samples < 1 or form not in covariances:
            raise ValueError(
                "its aligned mixtures follow from statistics, but it says not how "
                f"(derivation {how.tolist()})"
            )
        twin.align_to_statistics(samples, covariances[form], seed)
        return twin.state_dict()

    def _drawn_positions(self, features: Tensor) -> Tensor | None:
        if not self.training or self.position_fraction >= 1.0:
            return None
        total = features.shape[1] * features.shape[2]
        count = max(1, round(self.position_fraction * total))
        # Drawn from the minibatch itself, so that a teacher sees what its student sees.
        digest = features.sum(dtype=torch.float32).view(torch.int32).item()
        generator = torch.Generator().manual_seed(int(digest))
        return torch.randperm(total, generator=generator)[:count].to(features.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image, see :class:`AnomalyModel`."""
        known = self.known_categories
        levels, outputs = [], []
        for index, features in enumerate(self.layout.unpack(self.packed(x))):
            mixture = self.mixtures[index]
            assert isinstance(mixture, HierarchicalMixture)
            count, height, width, dimensions = features.shape
            positions = self._drawn_positions(features)
            z, log_det = self.latent_level(index, features, positions)
            centers = mixture.centers[known]
            class_logits = mixture.class_logits[known]
            distance = squared_distances(z, centers[:, 0]).mean(1)
            constant = 0.5 * dimensions * math.log(2 * math.pi)
            log_likelihood = -0.5 * distance - constant
            aligned = self._aligned_log_likelihood(index, z, known)
            if aligned is not None:
                found = aligned.mean(1)
                log_likelihood = torch.where(found.isnan(), log_likelihood, found)
                aligned = aligned.view(count, height, width, len(known))
            log_likelihood = log_likelihood + log_det.mean(1, keepdim=True)
            outputs.append(
                log_likelihood / math.sqrt(dimensions) + class_logits.log_softmax(0)
            )
            grid = (height, width) if positions is None else (1, len(positions))
            levels.append(
                LevelLatents(
                    z.view(count, *grid, dimensions),
                    log_det.view(count, *grid),
                    centers,
                    class_logits,
                    mixture.inner_logits[known],
                    aligned,
                    self._aligned_mixture(index),
                )
            )
        output = x.new_full((len(x), self.num_categories), MASKED)
        output = output.index_copy(1, known, torch.stack(outputs).mean(0))
        return attach_latents(output, Latents(levels, known))

    def log_likelihood_levels(self, latents: object, category: Tensor) -> list[Tensor]:
        """Return log p(x|c)/D per position, one (N, H, W) per level."""
        assert isinstance(latents, Latents)
        row = torch.searchsorted(latents.known, category)
        maps = []
        for level in latents.levels:
            log_likelihood = category_log_likelihood(
                level.z.flatten(1, 2),
                level.log_det.flatten(1),
                inner_centers(level.centers)[row],
                level.inner_logits[row],
            ).view(level.log_det.shape)
            if level.aligned is not None:
                own = level.aligned[torch.arange(len(row)), :, :, row] + level.log_det
                log_likelihood = torch.where(own.isnan(), log_likelihood, own)
            maps.append(log_likelihood / level.z.shape[-1])
        return maps

    def negative_entropy_levels(
        self, latents: object, category: Tensor
    ) -> list[Tensor]:
        """Return Σ_c p_c log p_c over the main centres, (N, H, W) per level."""
        assert isinstance(latents, Latents)
        known = latents.known
        left_out = ~self.known_when_learned[category][:, None, None, known]
        scale = math.log(max(len(known), 2)) if self.entropy == "log_categories" else 1
        maps = []
        for level in latents.levels:
            distance = squared_distances(level.z, level.centers[:, 0])
            if self.entropy == "when_learned":
                distance = distance.masked_fill(left_out, _FAR)
            maps.append(negative_entropy(distance) / scale)
        return maps

    def alternatives(self, category: Tensor) -> Tensor:
        """Return over how many categories each image's entropy is taken, (N,)."""
        if self.entropy == "when_learned":
            return self.known_when_learned[category].sum(1)
        return super().alternatives(category)
