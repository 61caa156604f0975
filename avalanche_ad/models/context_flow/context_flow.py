"""A density of places for each category, and a flow told from noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.context_flow.alignment import InputAlignment
from avalanche_ad.models.context_flow.flow import ContextFlow
from avalanche_ad.models.context_flow.low_rank import adapted
from avalanche_ad.models.context_flow.networks import (
    CategoryNetworks,
    surroundings_at,
)
from avalanche_ad.models.context_flow.objectives import (
    contrast_loss,
    noised,
    noised_regions,
    painted_positions,
    tail_aware,
)
from avalanche_ad.models.context_flow.options import ContextFlowOptions
from avalanche_ad.models.density_model import LikelihoodMap
from avalanche_ad.models.fitted_density import FeatureLatents
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.losses import image_loss
from avalanche_ad.models.placed_density import PlacedDensity
from avalanche_ad.models.position_code import position_codes

__all__ = ["ContextFlowGMM"]

POSITIONS = 256
"""So many of either kind a critic sees of a category in a step."""


def drawn(level: Tensor, rows: Tensor) -> Tensor:
    """Return :data:`POSITIONS` positions drawn of some images, (K, 3).

    :param level: features (N, H, W, D).
    :param rows: of the images (M,).
    """
    sizes = (len(rows), *level.shape[1:3])
    found = torch.stack([torch.randint(size, (POSITIONS,)) for size in sizes], 1)
    found = found.to(rows)
    found[:, 0] = rows[found[:, 0]]
    return found


class ContextFlowGMM(PlacedDensity):
    """A Gaussian for every position of a category, and a flow of its maps beside it.

    The Gaussians are fitted in closed form when a category arrives
    (:class:`PlacedDensity`); they tell images' category and give the map
    ``likelihood``. The flow is trained by gradient, by a strategy, on features whitened
    in part by the category's own mean and covariance
    (:class:`~avalanche_ad.models.context_flow.alignment.InputAlignment`), and gives the
    map ``context``: the log-odds that a position is normal and not noise
    (:class:`~avalanche_ad.models.context_flow.networks.CategoryNetworks`), or log p/D
    where noise trains nothing. The score is of both.

    A category has a flow of its own; or, with ``rank``, what the categories of the
    first experience trained together, frozen after it, and matrices of low rank of its
    own. Nothing of a category moves after its experience, so nothing is forgotten but
    by inferring another category.

    A training step sees a crop of ``crop`` x ``crop`` positions of every image. Its
    loss is

        λ_l · tail_aware(−log p/D) + λ_c · contrast,

    see :mod:`~avalanche_ad.models.context_flow.objectives`. Likelihood alone makes a
    flow sure of what it models, defects too; noise as negatives has it say where
    features leave the normal ones. Beside the flow a critic is told from painted
    defects, see :meth:`defect_loss`.

    >>> model = ContextFlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2, hidden=8)
    >>> x = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    >>> model.add_categories([0], {0: x})
    >>> target = torch.zeros(6, dtype=torch.long)
    >>> model.loss(model(x), target).shape
    torch.Size([6])

    :param layout: shapes of the feature levels.
    :param num_categories: room made beforehand; more is made when categories arrive.
    :param cells: see :class:`PlacedDensity`, as ``covariance_shrinkage``.
    :param max_positions: feature vectors per category and level that the alignment is
        fitted to.
    :param couplings: of each flow, see
        :class:`~avalanche_ad.models.context_flow.flow.ContextFlow`, as ``hidden``,
        ``kernel`` and ``clamp``.
    :param condition_channels: of the position code, 0 for none.
    :param whitening: power of the alignment, 0 to 1.
    :param rank: of a category's own matrices, 0 for a flow of its own.
    :param auxiliary: with ``rank``, couplings of its own after the base's.
    :param crop: positions a side that a training step sees.
    :param likelihood_weight: λ_l.
    :param tail_weight: of the tail in it.
    :param tail_share: of the positions that are the tail.
    :param contrast_weight: λ_c.
    :param noise: deviation of the noise that a flow is told from, in aligned features.
    :param head: hidden width of the network of a flow's latents, 0 for none.
    :param critic: hidden width of the network of features, 0 for none.
    :param score_kind: see :class:`DensityModel`, as ``smoothing_sigma``,
        ``likelihood_map`` and ``position_calibration``.
    :param seed: decides where flows and networks start.
    """

    kind = "context_flow"
    Options = ContextFlowOptions
    maps = ("likelihood", "uncertainty", "context")
    trained = True
    repeats_categories = False
    starts_from_features = True

    def __init__(
        self,
        layout: FeatureLayout,
        num_categories: int = 0,
        *,
        cells: int = 8,
        covariance_shrinkage: float = 1e-2,
        max_positions: int = 20_000,
        couplings: int = 6,
        hidden: int = 128,
        kernel: int = 1,
        clamp: float = 1.5,
        condition_channels: int = 16,
        whitening: float = 0.5,
        rank: int = 0,
        auxiliary: int = 0,
        crop: int = 16,
        likelihood_weight: float = 0.0,
        tail_weight: float = 0.0,
        tail_share: float = 0.05,
        contrast_weight: float = 1.0,
        noise: float = 0.5,
        head: int = 256,
        critic: int = 256,
        score_kind: str = "product_with_context",
        smoothing_sigma: float = 4.0,
        likelihood_map: LikelihoodMap = "log",
        seed: int = 0,
        position_calibration: bool = True,
    ) -> None:
        super().__init__(
            layout,
            cells,
            covariance_shrinkage,
            score_kind,
            smoothing_sigma,
            likelihood_map,
            position_calibration,
        )
        self.rank = rank
        self.auxiliary = auxiliary
        self.crop = crop
        self.likelihood_weight = likelihood_weight
        self.tail_weight = tail_weight
        self.tail_share = tail_share
        self.contrast_weight = contrast_weight
        self.noise = noise
        self.seed = seed
        self.max_positions = max_positions
        self._shape = (condition_channels, couplings, hidden, kernel, clamp)
        self._added = (head, critic) if contrast_weight else (0, 0)
        self._trains = False  # whether a step was taken since categories were added
        widths = [width for _, _, width in layout.levels]
        self.alignments = nn.ModuleList(
            InputAlignment(width, whitening) for width in widths
        )
        self.categories = nn.ModuleDict()
        self.base = nn.ModuleList(
            self._new_flow(index, -1) for index in range(len(widths) if rank else 0)
        )
        for index, (height, width, _) in enumerate(layout.levels):
            code = position_codes(condition_channels, height, width)
            code = code.view(height, width, condition_channels)
            self.register_buffer(f"code_{index}", code, persistent=False)
        self.resize(num_categories)

    # Categories -----------------------------------------------------------------

    def resize(self, num_categories: int) -> None:
        """Make room for categories without starting them."""
        super().resize(num_categories)
        for alignment in self.alignments:
            alignment.resize(num_categories)  # type: ignore[operator]

    def add_categories(
        self, categories: Sequence[int], features: dict[int, Tensor] | None = None
    ) -> None:
        """Fit densities and alignments of new categories, and start their flows.

        Those known already are left alone, and those that were trained are not any
        more.

        :param categories: category indices.
        :param features: features (N, size) of each.
        """
        super().add_categories(categories)
        known = set(self.known_categories.tolist())
        new = [one for one in categories if one not in known]
        if not new:
            return
        # under joint training all arrive before the first step
        if self._trains:
            self.categories.requires_grad_(False)
            self.base.requires_grad_(False)
            self._trains = False
        for category in new:
            if features is not None and category in features:
                self.fit_category(category, features[category])

    def fit_levels(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit one category's density and alignments, and start its networks."""
        super().fit_levels(category, levels)
        for alignment, level in zip(self.alignments, levels, strict=True):
            rows = level.flatten(0, 2)
            step = max(1, len(rows) // self.max_positions)
            alignment.fit(category, rows[::step])  # type: ignore[operator]
        self._start(category)

    def _start(self, category: int) -> None:
        flows = [
            self._new_flow(index, category) for index in range(len(self.alignments))
        ]
        seed = self.seed * 100_003 + 101 * (category + 1) + 100
        started = CategoryNetworks(flows, *self._added, seed)
        self.categories[str(category)] = started.to(self.device)

    def _new_flow(self, index: int, category: int) -> ContextFlow:
        """Return a category's flow of a level, or the base where there is none yet."""
        seed = self.seed * 100_003 + 101 * (category + 1) + index
        if self.rank and category >= 0:
            base = self.base[index]
            assert isinstance(base, ContextFlow)
            return adapted(base, self.rank, seed, self.auxiliary)
        code, couplings, hidden, kernel, clamp = self._shape
        width = self.layout.levels[index][2]
        return ContextFlow(width, code, couplings, hidden, kernel, clamp, seed)

    def _of(self, category: int) -> CategoryNetworks:
        found = self.categories[str(category)]
        assert isinstance(found, CategoryNetworks)
        return found

    # Training -------------------------------------------------------------------

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the category's own flow per image, (N,).

        In evaluation, or where a plugin took the latents away, it is minus the image's
        affinity.

        :param output: what :meth:`forward` returned, (N, C).
        :param target: category indices (N,).
        """
        latents = latents_of(output)
        if not self.training or not isinstance(latents, FeatureLatents):
            return image_loss(output, target)
        self._trains = True
        loss = output.new_zeros(len(target))
        for category in sorted(set(target.tolist())):
            rows = (target == category).nonzero().flatten()
            if str(category) in self.categories:
                own = self._loss_of(category, latents.features, rows)
                loss = loss.index_add(0, rows, own)
        if not loss.requires_grad and torch.is_grad_enabled():
            loss.requires_grad_()  # all of earlier experiences: a step of nothing
        return loss

    def _loss_of(self, category: int, levels: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Return the loss of one category's images, (M,), mean over levels.

        :param category: category index.
        :param levels: features of the minibatch, one (N, H, W, D) per level.
        :param rows: the category's (M,).
        """
        losses = []
        own = self._of(category)
        for index, level in enumerate(levels):
            where = self._drawn_crop(index)
            x = self.alignments[index](level[:, where[0], where[1]][rows], category)
            code = self._code(index)[where]
            loss = x.new_zeros(len(x))
            if self.likelihood_weight:
                surprise = -own.log_density(index, x, code)
                tail = tail_aware(surprise, self.tail_weight, self.tail_share)
                loss = loss + self.likelihood_weight * tail
            if self.contrast_weight:
                regions = noised_regions(x.shape[:3]).to(x)
                mixed = noised(x, regions, self.noise)
                contrast = contrast_loss(own.by_flow(index, mixed, code), regions)
                loss = loss + self.contrast_weight * contrast
            losses.append(loss)
        return torch.stack(losses).mean(0)

    def defect_loss(
        self, x: Tensor, target: Tensor, defects: Tensor, where: Tensor
    ) -> Tensor:
        """Return the loss of telling images from painted defects by the critics.

        See :class:`AnomalyModel`. It is the mean over images of

            λ_c · (mean softplus(−c(normal)) + mean softplus(c(painted))),

        c a critic's log-odds at :data:`POSITIONS` positions drawn of either kind, mean
        over levels.
        """
        images = [self.layout.unflatten(self.features_of(one)) for one in (x, defects)]
        loss = images[0][0].new_zeros(())
        for index, (normals, painted) in enumerate(zip(*images, strict=True)):
            covered = painted_positions(where, (normals.shape[1], normals.shape[2]))
            for category in sorted(set(target.tolist())):
                if str(category) not in self.categories:
                    continue
                rows = (target == category).nonzero().flatten()
                judged = self._judged(category, index, normals, drawn(normals, rows))
                own = softplus(-judged).mean()
                some = covered[target[covered[:, 0]] == category]
                if len(some):
                    some = some[torch.randint(len(some), (POSITIONS,)).to(some)]
                    judged = self._judged(category, index, painted, some)
                    own = own + softplus(judged).mean()
                loss = loss + len(rows) / len(x) * own
        return self.contrast_weight * loss / len(images[0])

    def _judged(
        self, category: int, index: int, level: Tensor, positions: Tensor
    ) -> Tensor:
        """Return a critic's log-odds of positions (K, 3) of a level (N, H, W, D)."""
        chosen = torch.stack(
            [level[tuple(positions.T)], surroundings_at(level, positions)], 1
        )
        aligned = self.alignments[index](chosen, category).flatten(1)  # (K, 2D)
        return self._of(category).by_critic(index, aligned)

    def _drawn_crop(self, index: int) -> tuple[slice, slice]:
        slices = []
        for size in self.layout.levels[index][:2]:
            side = min(self.crop, size)
            first = int(torch.randint(size - side + 1, ()))
            slices.append(slice(first, first + side))
        return slices[0], slices[1]

    # Scores ---------------------------------------------------------------------

    def _code(self, index: int) -> Tensor:
        return self.get_buffer(f"code_{index}")

    @torch.no_grad()
    def _context(self, category: int, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return how normal features are to a category's networks, see the class."""
        own = self._of(category)
        evaluate = own.normality if self.contrast_weight else own.log_density
        found = []
        for index, level in enumerate(levels):
            code = self._code(index)
            parts = [
                evaluate(index, self.alignments[index](part, category), code)
                for part in torch.split(level, 8)
            ]
            found.append(torch.cat(parts))
        return found

    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return how normal every position is, see :class:`AnomalyModel`."""
        if name != "context":
            return super().normality_levels(name, latents, category)

        def evaluate(features: list[Tensor], index: int) -> list[Tensor]:
            return self._context(index, features)

        return self.own_levels(name, latents, category, evaluate)

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether densities are fitted anew for images held out: the flow is not."""
        return False

    # States ---------------------------------------------------------------------

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has: the flows of its categories."""
        names = {name.split(".")[1] for name in state if name.startswith("categories.")}
        kept = {name: part for name, part in self.categories.items() if name in names}
        self.categories = nn.ModuleDict(kept)
        for name in sorted(names - set(self.categories), key=int):
            self._start(int(name))
        self._trains = bool(names)
        super().make_room(state)
