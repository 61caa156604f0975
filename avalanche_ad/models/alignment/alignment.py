"""Statistics of features, and mixtures that follow the flow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.alignment.mixtures import (
    ALIGNED_COVARIANCES,
    AlignedCovariance,
    grouped_moments,
    kept_covariance,
    pushed_moments,
)
from avalanche_ad.models.evaluating import evaluating, seeded
from avalanche_ad.models.gaussians import (
    CategoryMixtures,
    KeptStatistics,
    Moments,
    precision_roots,
    statistics_like,
)
from avalanche_ad.models.loading import LoadsWhole
from avalanche_ad.models.settings import settings_of, settings_tensor

__all__ = ["Alignment"]


class MapsFeatures(Protocol):
    """A model with one map of features to latents for all categories: a flow."""

    layout: FeatureLayout

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    def latents_at(
        self, index: int, x: Tensor, positions: Tensor, flow: nn.Module | None = None
    ) -> Tensor:
        """Return where feature vectors (P, D) of a level are mapped to, (P, D)."""


class AlignmentRecipe(NamedTuple):
    """How mixtures follow from statistics and flow, see :meth:`Alignment.follow`."""

    samples: int
    covariance: AlignedCovariance
    seed: int


class Alignment(LoadsWhole):
    """What keeps a mixture where its flow maps a category: aligned mixtures.

    A category that has an aligned mixture is scored by it, and inferred from it. It is
    fitted to latents, or follows from ``statistics`` of the frozen features, pushed
    through the flow as it is. Then ``recipe`` says how, and a learner need not keep the
    mixtures from one experience to the next; they are saved all the same, since they
    score. All three are part of the state as they are.

    :param layout: shapes of the feature levels.

    ``mixtures`` holds one :class:`CategoryMixtures` per level, none before
    :meth:`start`; ``statistics`` is ``None`` while none are kept; ``recipe`` is
    ``None`` where the mixtures do not follow from statistics. ``trains_flow`` says that
    a flow is trained under these mixtures.

    >>> alignment = Alignment(FeatureLayout(((4, 4, 8),)))
    >>> len(alignment.start(2, 3)), alignment.recipe
    (1, None)
    """

    statistics: KeptStatistics | None

    def __init__(self, layout: FeatureLayout) -> None:
        super().__init__()
        self.layout = layout
        self.recipe: AlignmentRecipe | None = None
        self.trains_flow = False
        self.register_module("statistics", None)
        self.mixtures = nn.ModuleList()
        self._place = torch.zeros(())  # where new mixtures go

    def __len__(self) -> int:
        """Return the number of levels that have mixtures: all or none."""
        return len(self.mixtures)

    @property
    def components(self) -> int:
        """Gaussians of every mixture, 0 where there are none."""
        return self.mixture(0).means.shape[1] if len(self) else 0

    @property
    def categories(self) -> list[int]:
        """Categories that have an aligned mixture."""
        return self.mixture(0).categories.tolist() if len(self) else []

    def mixture(self, index: int) -> CategoryMixtures:
        """Return the mixtures of a level."""
        found = self.mixtures[index]
        assert isinstance(found, CategoryMixtures)
        return found

    def resize(self, num_categories: int) -> None:
        """Make room for categories that have no mixture yet."""
        for index in range(len(self)):
            self.mixture(index).resize(num_categories)

    def start(self, components: int, num_categories: int) -> list[CategoryMixtures]:
        """Return the mixtures, one per level, made empty where there are none.

        They are taken to be fitted to latents from then on: there is no recipe.

        :param components: K of every mixture; another than before starts anew.
        :param num_categories: room to make.
        """
        self.recipe = None
        if self.components != components:
            self.mixtures = self._empty(components)
        self.resize(num_categories)
        return [self.mixture(index) for index in range(len(self))]

    def _empty(self, components: int) -> nn.ModuleList:
        return nn.ModuleList(
            CategoryMixtures(channels, components).to(self._place)
            for _, _, channels in self.layout.levels
        )

    def log_likelihood(self, index: int, z: Tensor, known: Tensor) -> Tensor:
        """Return log p(z|c), nan for a category without a mixture.

        :param index: level, one that has mixtures.
        :param z: latents (N, P, D).
        :param known: categories (C,), below the room there is.
        :return: (N, P, C).
        """
        mixture = self.mixture(index)
        has = mixture.known[known]
        rows = z.flatten(0, 1)
        found = rows.new_full((len(rows), len(known)), torch.nan)
        found[:, has] = mixture.log_likelihood(rows, known[has])
        return found.view(*z.shape[:2], len(known))

    # From statistics ------------------------------------------------------------

    def follow(
        self,
        model: MapsFeatures,
        num_categories: int,
        samples: int,
        covariance: AlignedCovariance = "full",
        seed: int = 0,
    ) -> None:
        """Align all categories that have statistics to where the flow maps those.

        :param model: with the flow.
        :param num_categories: room to make.
        :param samples: per category and level, see :meth:`moments`.
        :param covariance: what is kept of the covariances.
        :param seed: of the samples.
        """
        assert self.statistics is not None
        recipe = AlignmentRecipe(samples, covariance, seed)
        mixtures = self.start(self.statistics.components, num_categories)
        assert isinstance(model, nn.Module)
        with evaluating(model):
            for category in self.statistics.categories.tolist():
                with seeded(seed * 1009 + category):
                    for index, mixture in enumerate(mixtures):
                        fitted = self._fitted(model, index, category, recipe)
                        mixture.put(category, *fitted)
        self.recipe = recipe

    def _fitted(
        self, model: MapsFeatures, index: int, category: int, recipe: AlignmentRecipe
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights, means and precision roots that follow from statistics."""
        found = self.moments(model, index, category, recipe.samples)
        kept = kept_covariance(found.covariance, recipe.covariance)
        return found.weight, found.mean, precision_roots(kept)

    def latents(
        self, model: MapsFeatures, index: int, category: int, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return samples of a category's statistics, and where the flow maps them.

        :param model: with the flow.
        :param index: level.
        :param category: category with statistics.
        :param count: how many samples.
        :return: x (count, D), latents (count, D), and the component each sample was
            drawn from (count,).
        """
        assert self.statistics is not None
        device = self._place.device
        height, width, _ = self.layout.levels[index]
        categories = torch.full((count,), category, device=device)
        positions = torch.randint(height * width, (count,)).to(device)
        x, component = self.statistics.sample_level(index, categories, positions)
        return x, model.latents_at(index, x, positions), component

    def moments(
        self, model: MapsFeatures, index: int, category: int, count: int
    ) -> Moments:
        """Return the moments of a category's statistics under the flow as it is.

        :param model: with the flow.
        :param index: level.
        :param category: category with statistics.
        :param count: how many samples the flow's bend is estimated from, see
            :func:`~avalanche_ad.models.alignment.mixtures.pushed_moments`.
        :return: weights that sum to 1, means (K, D), covariances (K, D, D), in double.
        """
        assert self.statistics is not None
        x, z, component = self.latents(model, index, category, count)
        gaussians = self.statistics.gaussians(index, category)
        if gaussians is None:
            return grouped_moments(z, component, self.statistics.components)
        return pushed_moments(gaussians, x, z, component)

    def refits(self, category: int, images: int) -> bool:
        """Whether a category's mixture can be fitted anew without some of its images.

        So it is where mixtures follow from statistics, unless those are of more images.

        :param category: a category that has been learned.
        :param images: how many normals of it there are, copies included.
        """
        return (
            self.statistics is not None
            and self.recipe is not None
            and int(self.statistics.images[category]) <= images
        )

    def mixtures_without(
        self,
        model: MapsFeatures,
        category: int,
        x: Tensor,
        parts: Sequence[Tensor],
    ) -> Iterator[list[CategoryMixtures]]:
        """Yield a category's mixtures, one per level, made of some images alone.

        The flow stays as it is. In each mixture the category is the first.

        :param model: with the flow.
        :param category: a category that :meth:`refits`.
        :param x: features (N, layout.size) of its training normals.
        :param parts: rows to fit to.
        """
        assert self.statistics is not None
        assert self.recipe is not None
        recipe = self.recipe
        for without in self.statistics.without(category, x, parts):
            found = []
            with self._statistics_of(without), seeded(recipe.seed * 1009 + category):
                for index, (_, _, width) in enumerate(self.layout.levels):
                    mixture = CategoryMixtures(width, without.components).to(x.device)
                    mixture.put(0, *self._fitted(model, index, category, recipe))
                    found.append(mixture)
            yield found

    @contextmanager
    def _statistics_of(self, statistics: KeptStatistics) -> Iterator[None]:
        """Let the statistics be others for a while."""
        own, self.statistics = self.statistics, statistics
        try:
            yield
        finally:
            self.statistics = own

    # State ----------------------------------------------------------------------

    def _apply(self, fn, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN003, ANN202
        """Move to a device, or to another type of number, what comes later too."""
        self._place = fn(self._place)
        return super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]

    def memory(self) -> dict[str, list[Tensor]]:
        """Return what has to be kept to learn on, see :class:`AnomalyModel`.

        Mixtures that follow from statistics need not be.
        """
        kept = [] if self.statistics is None else list(self.statistics.buffers())
        made = [] if self.recipe else list(self.mixtures.buffers())
        return {"statistics": kept, "parameters": made}

    def get_extra_state(self) -> Tensor:
        """Return the recipe as plain values, for torch to keep with the state."""
        return settings_tensor(None if self.recipe is None else self.recipe._asdict())

    def set_extra_state(self, state: Tensor) -> None:
        """Take the recipe of a state."""
        values = settings_of(state)
        self.recipe = None if values is None else _recipe(values)

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a recipe without statistics, see :class:`LoadsWhole`."""
        super().check_state(state)
        if self.recipe is not None and self.statistics is None:
            raise ValueError(
                "its aligned mixtures follow from statistics, and it has none"
            )

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has, see :class:`LoadsWhole`."""
        self.statistics = self._statistics_like(state)
        means = state.get("mixtures.0.means")
        if means is None:
            self.mixtures = nn.ModuleList()
        elif self.components != means.shape[1]:
            self.mixtures = self._empty(means.shape[1])
        super().make_room(state)

    def _statistics_like(self, state: Mapping[str, Tensor]) -> KeptStatistics | None:
        """Return statistics of the form that a state's have, the own where they fit."""
        like = statistics_like(self.layout, state)
        if like is None:
            return None
        own = self.statistics
        if (
            own is not None
            and type(own) is type(like)
            and all(
                buffer.shape[1:] == new.shape[1:]
                for buffer, new in zip(own.buffers(), like.buffers(), strict=True)
            )
        ):
            return own
        return like.to(self._place.device)


def _recipe(values: object) -> AlignmentRecipe:
    """Return the recipe of plain values.

    :raises ValueError: when it is none.
    """
    if isinstance(values, Mapping) and set(values) == set(AlignmentRecipe._fields):
        samples, covariance, seed = (values[name] for name in AlignmentRecipe._fields)
        if (
            isinstance(samples, int)
            and samples > 0
            and covariance in get_args(AlignedCovariance)
            and isinstance(seed, int)
        ):
            return AlignmentRecipe(samples, covariance, seed)
    raise ValueError(
        "its aligned mixtures follow from statistics, but it says not how: expected "
        f"samples, covariance ({', '.join(ALIGNED_COVARIANCES)}) and seed, got "
        f"{values!r}"
    )
