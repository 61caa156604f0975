"""PatchCore, with a share of each category's vectors or one budget for all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import MASKED, AnomalyModel
from avalanche_ad.models.batches import by_category, to_be_fitted
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.category_table import with_rows
from avalanche_ad.models.copies import copies_of
from avalanche_ad.models.latents import attach_latents
from avalanche_ad.models.patchcore.coreset import greedy_order, projected
from avalanche_ad.models.patchcore.held_out import squares_without
from avalanche_ad.models.patchcore.later_constants import LaterConstants
from avalanche_ad.models.patchcore.memory_bank import MemoryBank
from avalanche_ad.models.patchcore.neighbours import (
    Search,
    check_search,
    mean_distance,
    nearest_squares,
)
from avalanche_ad.models.patchcore.options import PatchCoreOptions
from avalanche_ad.models.patchcore.patches import images_of, patch_features

__all__ = ["PatchCore"]

_DIMENSIONS = 64  # that vectors are chosen in


@dataclass
class _Patches:
    """Patches (N, H, W, D), and what their positions say under a category, (N, H, W).

    Distances are taken when a category is asked for, ``category`` (N,) is whose they
    are: −1 for none yet.
    """

    patches: Tensor
    normality: Tensor
    category: Tensor


class PatchCore(AnomalyModel):
    """A coreset of each category's normal patches; far from all is anomalous.

    The map ``distance`` is the mean Euclidean distance of a position's patch
    (:func:`~avalanche_ad.models.patchcore.patches.patch_features`) to the k nearest
    vectors kept of the category. Those are chosen by greedy k-centre
    (:func:`~avalanche_ad.models.patchcore.coreset.greedy_order`) among
    ``max_positions`` patches drawn, in a projection to 64 dimensions.

    How many are kept: a ``share`` of the positions of the category's images, or
    ``vectors`` of each category, or ``budget`` in all. A budget is parted evenly among
    the categories known; when one arrives, the others give up the vectors that the
    greedy choice took last. What is left is what it would have chosen of their images
    had it been given the smaller number, so the bank depends on no order of arrival.
    Constants of position calibration are taken for smaller banks beforehand, down to a
    sixteenth, since the images are gone when one is cut; the nearest size's are used.
    Without position calibration distances grow with every cut, and thresholds of
    categories learned before do not follow.

    The category is inferred from every ``inference_stride``-th position each way, by

        out_c = −mean_p d²_c(p) / (2 v √D)

    with d_c to the nearest vector of c and v the mean variance of all vectors kept.
    The image score is the map's maximum, without the weights of the paper's Eq. 7.

    Source: Roth et al., CVPR 2022, arXiv 2106.08265. The fixed budget for all tasks is
    after CADIC (Yang et al., 2025, arXiv 2511.08634).

    >>> model = PatchCore(FeatureLayout(((4, 4, 2),)), vectors=20)
    >>> x = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    >>> model.fit_experience([(x, torch.zeros(8, dtype=torch.long))])
    >>> model(x).shape, model.bank.of(0).shape
    (torch.Size([8, 1]), torch.Size([20, 2]))

    :param layout: shapes of the feature levels.
    :param num_categories: room made beforehand; more is made when categories arrive.
    :param share: of a category's positions, kept where no number is given.
    :param vectors: kept of each category.
    :param budget: vectors kept in all.
    :param neighbours: k.
    :param neighbourhood: positions a side that a patch is the mean of.
    :param max_positions: patches of a category that vectors are chosen among.
    :param inference_stride: of the positions that the category is inferred from.
    :param search: of neighbours, by ``"torch"`` or ``"faiss"``, an extra of the
        package; they differ in the last digits.
    :param seed: decides the patches drawn and the projection.
    :param score_kind: see :class:`AnomalyModel`.
    :param smoothing_sigma: see :class:`AnomalyModel`.
    :param position_calibration: see :class:`AnomalyModel`.
    """

    kind = "patchcore"
    Options = PatchCoreOptions
    maps = ("distance",)
    trained = False
    memory_kind = "statistics"  # but for the bank
    spread: Tensor

    def __init__(
        self,
        layout: FeatureLayout,
        num_categories: int = 0,
        *,
        share: float = 0.1,
        vectors: int | None = None,
        budget: int | None = None,
        neighbours: int = 1,
        neighbourhood: int = 3,
        max_positions: int = 50_000,
        inference_stride: int = 4,
        search: Search = "torch",
        seed: int = 0,
        score_kind: str | None = None,
        smoothing_sigma: float = 4.0,
        position_calibration: bool = True,
    ) -> None:
        super().__init__(layout, score_kind, smoothing_sigma, position_calibration)
        self.share = share
        self.vectors = vectors
        self.budget = budget
        self.neighbours = neighbours
        self.neighbourhood = neighbourhood
        self.max_positions = max_positions
        self.inference_stride = inference_stride
        check_search(search)
        self.search = search
        self.seed = seed
        self.bank = MemoryBank(sum(channels for _, _, channels in layout.levels))
        self.register_buffer("spread", torch.ones(()))
        self.later = None
        if budget is not None and position_calibration:
            self.later = LaterConstants(self.map_shapes[0])
        self._brought: dict[int, int] = {}  # images of each that an experience brought
        # optimizers refuse a model without parameters
        self.placeholder = nn.Parameter(torch.zeros(0), requires_grad=False)
        self.resize(num_categories)

    @property
    def map_shapes(self) -> list[tuple[int, int]]:
        """(H, W) of the one map: all levels are joined at the finest."""
        height, width, _ = self.layout.levels[0]
        return [(height, width)]

    @property
    def num_categories(self) -> int:
        """Categories there is room for, seen or not."""
        return self.bank.num_categories

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories fitted so far, ascending."""
        return self.bank.categories

    def resize(self, num_categories: int) -> None:
        """Make room for categories without fitting them."""
        self.bank.resize(num_categories)

    # Fitting --------------------------------------------------------------------

    def fit_experience(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit the categories that are new, or of which there are more images now.

        As in a blurry stream, where a category's first few images arrive early. One
        that no experience brought, but a state or a call by hand, is left as it is.

        :param batches: minibatches (features (N, size), category indices (N,)).
        """
        known = set(self.known_categories.tolist())
        wanted = to_be_fitted(by_category(batches), known, self._brought)
        categories = len(known | set(wanted))
        for category, x in wanted.items():
            self._fit(category, x, categories)
            self._brought[category] = len(x)

    def fit_category(self, category: int, x: Tensor) -> None:
        """Choose one category's vectors; the others give up some if a budget says so.

        :param category: category index.
        :param x: its training features (N, layout.size).
        :raises TrainingError: when the budget is smaller than the number of categories.
        """
        self._fit(category, x, len({*self.known_categories.tolist(), category}))

    @torch.no_grad()
    def _fit(self, category: int, x: Tensor, categories: int) -> None:
        height, width = self.map_shapes[0]
        positions = len(x) * height * width
        count = self._count(positions, categories)
        if self.budget is not None:
            self.bank.shrink(count)
            self._follow_cut()
        generator = torch.Generator().manual_seed(self.seed * 1009 + category)
        drawn = torch.randperm(positions, generator=generator)[: self.max_positions]
        wanted = torch.zeros(positions, dtype=torch.bool, device=x.device)
        wanted[drawn] = True
        patches = torch.cat(
            [
                self._patches(part).flatten(0, 2)[rows]
                for part, rows in zip(
                    torch.split(x, 32),
                    torch.split(wanted, 32 * height * width),
                    strict=True,
                )
            ]
        )
        near = projected(patches, _DIMENSIONS, generator)
        order = greedy_order(near, min(count, len(patches)))
        self.bank.put(category, patches[order])
        spread = self.bank.vectors.float().var(0, correction=0).mean()
        self.spread = spread.clamp(min=1e-12)

    def _count(self, positions: int, categories: int) -> int:
        """Return how many vectors a category keeps."""
        if self.budget is None:
            return self.vectors or math.ceil(self.share * positions)
        if self.budget < categories:
            raise TrainingError(
                f"a budget of {self.budget} vectors holds none of some of {categories} "
                "categories: raise [model] budget"
            )
        return self.budget // categories

    def _patches(self, x: Tensor) -> Tensor:
        levels = self.layout.unflatten(self.features_of(x))
        return patch_features(levels, self.neighbourhood)

    # Scoring --------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return affinities per image (N, C), see :class:`PatchCore`."""
        patches = self._patches(x)
        output = x.new_full((len(x), self.num_categories), MASKED)
        rows, columns = (
            slice(min(self.inference_stride // 2, (size - 1) // 2), None)
            for size in self.map_shapes[0]
        )
        step = self.inference_stride
        few = patches[:, rows][:, ::step][:, :, columns][:, :, ::step].flatten(1, 2)
        unit = 2 * self.spread * math.sqrt(few.shape[2])
        for category in self.known_categories.tolist():
            square = nearest_squares(
                few.flatten(0, 1), self.bank.of(category), 1, self.search
            )
            output[:, category] = -square.view(few.shape[:2]).mean(1) / unit
        category = torch.full((len(x),), -1, device=x.device)
        latents = _Patches(patches, patches.new_empty(patches.shape[:3]), category)
        return attach_latents(output, latents)

    @torch.no_grad()
    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return minus the distances to a category's vectors, one (N, H, W)."""
        assert isinstance(latents, _Patches)
        found, category = latents, category.to(latents.category)
        for index in sorted(set(category[found.category != category].tolist())):
            rows = (category == index) & (found.category != index)
            patches = found.patches[rows]
            square = nearest_squares(
                patches.flatten(0, 2), self.bank.of(index), self.neighbours, self.search
            )
            found.normality[rows] = -mean_distance(square).view(patches.shape[:3])
            found.category[rows] = index
        return [found.normality.clone()]

    @torch.no_grad()
    def calibrate(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Take the constants of normals, each held against the vectors of others.

        To itself a training image is nearer than any new one. See
        :meth:`AnomalyModel.calibrate`.
        """
        for category, x in by_category(batches).items():
            if category not in self.known_categories.tolist():
                raise TrainingError(
                    f"category {category} has not been learned: fit the model to it "
                    "before it is calibrated"
                )
            every = torch.arange(len(x), device=x.device)
            sizes, rows = [int(self.bank.counts[category])], []
            if self.later is not None:
                sizes = self.later.sizes_below(sizes[0])
            for size in reversed(sizes):  # so that the whole bank's stay
                (distance,) = self._distances_without(category, x, [every], size)
                self.put_constants(category, {self.maps[0]: [-distance]})
                if self.later is not None:
                    rows.append(self._constants()[category])
            if self.later is not None:
                table = torch.stack(rows[::-1])
                self.later.set_rows(category, sizes=torch.tensor(sizes), rows=table)

    def _constants(self) -> Tensor:
        return self.positions[self.maps[0]].get_buffer("level_0")

    def _follow_cut(self) -> None:
        """Take the constants of the size nearest to what each category has left."""
        if self.later is not None:
            counts = self.bank.counts.tolist()
            rows = {
                category: self.later.nearest(category, counts[category])
                for category in self.later.categories.tolist()
            }
            table = with_rows(self._constants(), rows)
            self.positions[self.maps[0]].level_0 = table

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether the bank does without the vectors of images held out: it does."""
        return True

    @torch.no_grad()
    def levels_without(
        self,
        category: int,
        x: Tensor,
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[dict[str, Levels]]:
        """Yield what positions say by the vectors kept of some images alone.

        See :meth:`AnomalyModel.levels_without`. The bank is not chosen anew: it lacks
        the vectors that are patches of the other images.
        """
        found = self._distances_without(category, x, [rest for rest, _ in parts])
        for level, (_, rows) in zip(found, parts, strict=True):
            yield {name: [-level[rows]] for name in names}

    def _distances_without(
        self,
        category: int,
        x: Tensor,
        rests: Sequence[Tensor],
        count: int | None = None,
    ) -> Iterator[Tensor]:
        """Yield (N, H, W) by the vectors of some images alone, without one's own.

        :param count: of the first so many vectors kept; all by default.
        """
        bank, first = self.bank.of(category)[:count], copies_of(x)
        patches = torch.cat([self._patches(part) for part in torch.split(x, 32)])
        image = images_of(bank, patches.to(bank.dtype).flatten(1, 2))
        image = torch.where(image < 0, image, first[image])
        found = squares_without(
            patches.flatten(1, 2),
            first,
            bank,
            image,
            rests,
            self.neighbours,
            self.search,
        )
        for square in found:
            yield mean_distance(square).view(patches.shape[:3])

    # States ---------------------------------------------------------------------

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has."""
        super().make_room(state)
        self.bank.make_room(_of_bank(state))

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a state that contradicts itself."""
        super().check_state(state)
        self.bank.check_state(_of_bank(state))


def _of_bank(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix = "bank."
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
