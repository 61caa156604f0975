"""A density of places for each category, and a flow told from noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, takewhile

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.calibrated_maps import Levels
from avalanche_ad.models.context_flow.alignment import InputAlignment
from avalanche_ad.models.context_flow.ensemble import (
    CategoryEnsemble,
    fingerprints,
    left_out,
)
from avalanche_ad.models.context_flow.networks import (
    CategoryNetworks,
    with_surroundings,
)
from avalanche_ad.models.context_flow.objectives import (
    Weights,
    drawn_crop,
    drawn_positions,
    painted_positions,
)
from avalanche_ad.models.context_flow.options import ContextFlowOptions
from avalanche_ad.models.context_flow.starting import Start
from avalanche_ad.models.copies import copies_of
from avalanche_ad.models.density_model import LikelihoodMap
from avalanche_ad.models.fitted_density import FeatureLatents
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.losses import image_loss
from avalanche_ad.models.placed_density import PlacedDensity
from avalanche_ad.models.position_code import position_codes

__all__ = ["ContextFlowGMM"]

POSITIONS = 256  # of either kind that the critics of a category see in a step


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

    A category has ``networks`` such flows and critics, each trained on all of its
    images but a sixth, and takes the mean of what they say
    (:class:`~avalanche_ad.models.context_flow.ensemble.CategoryEnsemble`). Thresholds
    come from the images that one of them has not seen.

    A category has flows of its own; or, with ``rank``, what the categories of the
    first experience trained together, frozen after it, and matrices of low rank of its
    own. Nothing of a category moves after its experience, so nothing is forgotten but
    by inferring another category.

    A training step sees a crop of ``crop`` x ``crop`` positions of every image. Its
    loss is

        λ_l · tail_aware(−log p/D) + λ_c · contrast,

    see :mod:`~avalanche_ad.models.context_flow.objectives`. Likelihood alone makes a
    flow sure of what it models, defects too. Beside the flow a critic is told from
    painted defects, see :meth:`defect_loss`.

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
    :param networks: how many, at most six; a single one leaves no image out.
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
    :param doubt: see :meth:`AnomalyModel.candidates`.
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
        networks: int = 2,
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
        doubt: float = 1.0,
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
        self.networks = networks
        self.doubt = doubt
        self.crop = crop
        self.weights = Weights(
            likelihood_weight, tail_weight, tail_share, contrast_weight, noise
        )
        self.max_positions = max_positions
        self._trains = False  # whether a step was taken since categories were added
        widths = tuple(width for _, _, width in layout.levels)
        self._start = Start(
            widths,
            condition_channels,
            couplings,
            hidden,
            kernel,
            clamp,
            head,
            critic,
            rank,
            auxiliary,
            seed,
            contrast=contrast_weight > 0,
        )
        self.alignments = nn.ModuleList(
            InputAlignment(width, whitening) for width in widths
        )
        self.categories = nn.ModuleDict()
        self.base = self._start.base()
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

        Those known already are left alone; those that were trained are not any more.

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
            step = max(1, level[..., 0].numel() // self.max_positions)
            alignment.fit(category, level.flatten(0, 2)[::step])  # type: ignore[operator]
        copies = copies_of(torch.cat([level.flatten(1) for level in levels], 1))
        self._begin(category, left_out(fingerprints(levels), copies, self.networks))

    def _begin(self, category: int, images: Sequence[Tensor]) -> None:
        started = self._start.category(category, images, self.base)
        self.categories[str(category)] = started.to(self.device)

    def _of(self, category: int) -> CategoryEnsemble:
        found = self.categories[str(category)]
        assert isinstance(found, CategoryEnsemble)
        return found

    # Training -------------------------------------------------------------------

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the category's own flows per image, (N,).

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
        for category, networks, rows in self._trained_on(latents.features, target):
            own = self._loss_of(category, networks, latents.features, rows)
            loss = loss.index_add(0, rows, own)
        if not loss.requires_grad and torch.is_grad_enabled():
            loss.requires_grad_()  # all of earlier experiences: a step of nothing
        return loss

    def _trained_on(
        self, levels: Sequence[Tensor], target: Tensor
    ) -> Iterator[tuple[int, CategoryNetworks, Tensor]]:
        """Yield the networks that a minibatch trains, with category and rows (M,).

        :param levels: its features, one (N, H, W, D) per level.
        :param target: category indices (N,).
        """
        marks = fingerprints(levels)
        for category in sorted(set(target.tolist())):
            if str(category) in self.categories:
                rows = (target == category).nonzero().flatten()
                for networks, own in self._of(category).training_rows(marks[rows]):
                    yield category, networks, rows[own]

    def _loss_of(
        self,
        category: int,
        own: CategoryNetworks,
        levels: Sequence[Tensor],
        rows: Tensor,
    ) -> Tensor:
        """Return the loss of images that networks train on, (M,), mean over levels.

        :param category: whose they are.
        :param own: the networks.
        :param levels: features of the minibatch, one (N, H, W, D) per level.
        :param rows: of the images (M,).
        """
        losses = []
        for index, level in enumerate(levels):
            where = drawn_crop(level.shape[1:3], self.crop)
            x = self.alignments[index](level[:, where[0], where[1]][rows], category)
            code = self.get_buffer(f"code_{index}")[where]
            losses.append(own.flow_loss(index, x, code, self.weights))
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
        trained = list(self._trained_on(images[0], target))
        for index, (normals, painted) in enumerate(zip(*images, strict=True)):
            covered = painted_positions(where, (normals.shape[1], normals.shape[2]))
            align = self.alignments[index]
            for category, networks, rows in trained:
                number = POSITIONS // len(self._of(category))
                some = drawn_positions(normals, rows, number)
                seen = align(with_surroundings(normals, some), category).flatten(1)
                own = softplus(-networks.by_critic(index, seen)).mean()
                some = covered[target[covered[:, 0]] == category]
                if len(some):
                    some = some[torch.randint(len(some), (number,)).to(some)]
                    seen = align(with_surroundings(painted, some), category).flatten(1)
                    own = own + softplus(networks.by_critic(index, seen)).mean()
                loss = loss + len(rows) / len(x) * own
        return self.weights.contrast * loss / len(images[0])

    # Scores ---------------------------------------------------------------------

    @torch.no_grad()
    def _context(self, category: int, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return how normal features are to a category's networks, see the class."""
        own = self._of(category)
        shares = own.shares(fingerprints(levels))
        found = []
        for index, level in enumerate(levels):
            code = self.get_buffer(f"code_{index}")
            normal = level.new_zeros(level.shape[:3])
            for networks, share in zip(own, shares.T, strict=True):
                for rows in share.nonzero().flatten().split(8):
                    x = self.alignments[index](level[rows], category)
                    value = networks.normality(index, x, code)
                    normal[rows] += share[rows, None, None] * value
            found.append(normal)
        return found

    def normality_levels(self, name: str, latents: object, category: Tensor) -> Levels:
        """Return how normal every position is, see :class:`AnomalyModel`."""
        if name != "context":
            return super().normality_levels(name, latents, category)
        return self.own_levels(
            name, latents, category, lambda x, index: self._context(index, x)
        )

    def holds_out_density(self, category: int, images: int) -> bool:
        """Whether held-out images are as new, see :class:`PlacedDensity`.

        They are where networks leave some out: see :meth:`held_out_rows`.
        """
        own = self._of(category).images
        return bool(len(own)) and super().holds_out_density(category, images)

    def held_out_rows(self, category: int, x: Tensor) -> Tensor:
        """Return the images that a network leaves out, all if none does, (N,)."""
        marks = fingerprints(self.layout.unflatten(self.features_of(x)))
        rows = torch.isin(marks, self._of(category).images)
        return rows | ~rows.any()

    def likelihood_without(
        self,
        category: int,
        features: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
        names: Sequence[str],
    ) -> Iterator[Mapping[str, list[Tensor]]]:
        """Yield what positions say without some images, see :class:`FittedDensity`."""
        context = self._context(category, features) if "context" in names else None
        found = super().likelihood_without(category, features, parts, names)
        for (_, rows), own in zip(parts, found, strict=True):
            added = {} if context is None else {"context": [m[rows] for m in context]}
            yield {**own, **added}

    # States ---------------------------------------------------------------------

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has: the flows of its categories."""
        names = {name.split(".")[1] for name in state if name.startswith("categories.")}
        kept = {name: part for name, part in self.categories.items() if name in names}
        self.categories = nn.ModuleDict(kept)
        for name in sorted(names - set(self.categories), key=int):
            parts = (f"categories.{name}.images_{part}" for part in count())
            sizes = takewhile(state.__contains__, parts)
            self._begin(int(name), [torch.empty_like(state[key]) for key in sizes])
        self._trains = bool(names)
        super().make_room(state)
