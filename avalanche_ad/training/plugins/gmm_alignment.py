"""Bring the mixtures of all categories back to where the flow maps them now."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.alignment.mixtures import (
    ALIGNED_COVARIANCES,
    AlignedCovariance,
    aligned_mixture,
    climbed_mixture,
)
from avalanche_ad.models.evaluating import evaluating, seeded
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.models.gaussians import (
    CategoryMixtures,
    IncrementalGMM,
    linear_drift,
    moved_gaussians,
    semantic_drift,
)
from avalanche_ad.registry.options import AboveZero, AtLeastTwo, Count
from avalanche_ad.training.dynamic import features_by_category
from avalanche_ad.training.plugins.statistics_keeper import StatisticsKeeper

__all__ = [
    "AlignmentSource",
    "AlignmentUpdate",
    "GMMAlignmentPlugin",
    "drawn_features",
    "drawn_latents",
    "fitted_mixture",
]

AlignmentSource = Literal["statistics", "exemplars", "snapshot", "sdc", "ldc"]
AlignmentUpdate = Literal["moments", "em", "gradient"]

SOURCES = ("statistics", "exemplars", "snapshot", "sdc", "ldc")
UPDATES = ("moments", "em", "gradient")


class GMMAlignmentPlugin(StatisticsKeeper):
    """After each experience, re-align the mixtures of the flow-GMM with its flow.

    Every category gets an aligned mixture of full-covariance Gaussians per level,
    fitted to where the flow maps it now, by which it is scored from then on
    (:class:`~avalanche_ad.models.alignment.Alignment`). New categories' are fitted to
    their training images, but for the first source. Where the latents of old ones come
    from is the ``source``:

    - ``"statistics"``: samples of
      :class:`~avalanche_ad.models.gaussians.FeatureStatistics`,
      taken of the frozen features when a category was learned and kept with the model,
      pushed through the flow, for new categories too. No image is
      kept, and nothing drifts, since the backbone does not.
    - ``"exemplars"``: a few real images of each category.
    - ``"snapshot"``: samples of the old mixtures, brought to feature space by the old
      flow's inverse and pushed through the new one (HCL's and Pomponi's idea). The
      error of one experience is what the next starts from.
    - ``"sdc"`` and ``"ldc"``: none; the old mixtures are moved by the drift that the
      current images show between old and new flow, of each mean apart (semantic drift
      compensation) or as one affine map (learnable drift compensation).

    and how a mixture is fitted to latents is the ``update``: ``"moments"`` of each
    group (of the statistics, the components' own moments under the flow: their affine
    part is exact, and samples estimate only what bends, see
    :func:`~avalanche_ad.models.alignment.mixtures.pushed_moments`; a real image's
    latents are grouped by EM), ``"em"``: stepwise EM in minibatches, or
    ``"gradient"``: ``steps`` gradient steps on the mixture as it was, the flow held; a
    new category's starts from its moments.

    :param source: see above.
    :param update: see above, ``"moments"`` by default; of no use with a drift.
    :param covariance: what an aligned Gaussian keeps of its covariance.
    :param samples: latents per category, level and alignment.
    :param exemplars: images per category of ``"exemplars"``, 4 by default.
    :param steps: of ``"gradient"``, 100 by default.
    :param lr: of ``"gradient"``, 0.01 by default, see :func:`climbed_mixture`.
    :param options: see :class:`StatisticsKeeper`; ``components`` are those of the
        aligned mixtures too.
    :raises TrainingError: for an unknown source or update, or an option that has no
        effect with them.

    >>> GMMAlignmentPlugin(update="em", steps=10)
    Traceback (most recent call last):
    ...
    avalanche_ad.errors.TrainingError: ... steps = 10 has no effect with update...
    """

    aligns = True

    def __init__(
        self,
        source: AlignmentSource = "statistics",
        update: AlignmentUpdate | None = None,
        *,
        covariance: AlignedCovariance = "full",
        samples: AtLeastTwo = 20_000,
        exemplars: Count | None = None,
        steps: Count | None = None,
        lr: AboveZero | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, value, known in (
            ("source", source, SOURCES),
            ("update", update or "moments", UPDATES),
            ("covariance", covariance, ALIGNED_COVARIANCES),
        ):
            if value not in known:
                raise TrainingError(
                    f"expected {name} as one of {', '.join(known)}, got {value!r}"
                )
        idle: dict[str, tuple[object, str]] = {}
        if source in ("sdc", "ldc"):
            idle["update"] = update, f"source = {source!r}"
        if source != "exemplars":
            idle["exemplars"] = exemplars, f"source = {source!r}"
        if update != "gradient":
            way = f"update = {update or 'moments'!r}"
            idle |= {"steps": (steps, way), "lr": (lr, way)}
        for name, (stated, given) in idle.items():
            if stated is not None:
                raise TrainingError(
                    f"GMMAlignmentPlugin: {name} = {stated!r} has no effect with "
                    f"{given}: leave it out"
                )
        self.source: AlignmentSource = source
        self.update: AlignmentUpdate = update or "moments"
        self.covariance: AlignedCovariance = covariance
        self.samples = samples
        self.exemplars = 4 if exemplars is None else exemplars
        self.steps = 100 if steps is None else steps
        self.lr = 1e-2 if lr is None else lr
        self.memory: dict[int, Tensor] = {}
        self._before: nn.ModuleList | None = None
        self._learned_of: dict[int, int] = {}  # images of each category

    @property
    def keeps_statistics(self) -> bool:  # type: ignore[override]
        """Whether its source is statistics."""
        return self.source == "statistics"

    # Hooks ----------------------------------------------------------------------

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the flow for the experience, where the source compares with it."""
        super().before_training_exp(strategy, *args, **kwargs)
        model = strategy.model
        if self.source in ("snapshot", "sdc", "ldc") and len(model.alignment):
            self._before = copy.deepcopy(model.flows).eval()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Align all categories; learn what the source needs of the new ones."""
        model: FlowModel = strategy.model
        device = model.device
        # a data loader draws too
        with evaluating(model), seeded(self.seed or 0):
            # what the strategy trains on: under joint training all experiences at once
            found = features_by_category(strategy.adapted_dataset)
            # a few images that come back, as in a blurry stream, make nothing new
            current = {
                category: x.to(device)
                for category, x in found.items()
                if len(x) >= self._learned_of.get(category, 0)
            }
            self._learned_of |= {category: len(x) for category, x in current.items()}
            if self.source == "statistics":
                self.keep(model, current)
                if self.update == "moments":
                    seed = self.seed or 0
                    model.align_to_statistics(self.samples, self.covariance, seed)
                    return
            old = [c for c in model.alignment.categories if c not in current]
            model.alignment.start(self.components, model.num_categories)
            if old and self._before is not None:
                self._follow(model, old, current)
            for category, x in current.items():
                self._learn(model, category, x)
            if self.source in ("statistics", "exemplars"):
                for category in old:
                    self._align(model, category)
        self._before = None

    # Categories -----------------------------------------------------------------

    def _learn(self, model: FlowModel, category: int, x: Tensor) -> None:
        """Take what the source needs of a new category, and align it."""
        if self.source == "exemplars":
            # a copy: a view would keep all images
            self.memory[category] = x[: self.exemplars].clone()
        self._align(model, category, x)

    def _align(self, model: FlowModel, category: int, x: Tensor | None = None) -> None:
        """Fit a category's aligned mixture to images, or to what is kept of it."""
        if self.source == "exemplars" and x is None:
            x = self.memory[category]
        for index in range(len(model.alignment)):
            mixture = model.alignment.mixture(index)
            component = None
            if self.source == "statistics":
                _, z, component = model.alignment.latents(
                    model, index, category, self.samples
                )
            else:
                assert x is not None
                z = drawn_latents(model, index, x, self.samples)
            self._refit(mixture, category, z, component)

    def _refit(
        self,
        mixture: CategoryMixtures,
        category: int,
        z: Tensor,
        component: Tensor | None,
    ) -> None:
        """Fit a category's mixture to latents by the update."""
        if self.update == "gradient" and mixture.known[category]:
            found = climbed_mixture(
                z,
                mixture.log_weights[category].exp(),
                mixture.means[category].detach(),
                mixture.precision_roots[category],
                steps=self.steps,
                lr=self.lr,
            )
        else:
            found = self._fitted(z, component)
        mixture.put(category, *found)

    def _follow(
        self, model: FlowModel, old: list[int], current: dict[int, Tensor]
    ) -> None:
        """Move old mixtures with the flow, without anything kept of their images."""
        assert self._before is not None
        x = torch.cat(list(current.values()))
        for index in range(len(model.alignment)):
            mixture = model.alignment.mixture(index)
            flow = self._before[index]
            if self.source == "snapshot":
                for category in old:
                    z, component = self._reflown(model, index, category)
                    self._refit(mixture, category, z, component)
                continue
            features, positions = drawn_features(model, index, x, self.samples)
            before = model.latents_at(index, features, positions, flow)
            after = model.latents_at(index, features, positions)
            means = mixture.means[old]
            if self.source == "sdc":
                shift = semantic_drift(means.flatten(0, 1), before, after)
                mixture.means[old] = means + shift.view_as(means)
            else:
                moved = moved_gaussians(
                    means, mixture.precision_roots[old], *linear_drift(before, after)
                )
                mixture.means[old], mixture.precision_roots[old] = moved

    def _reflown(
        self, model: FlowModel, index: int, category: int
    ) -> tuple[Tensor, Tensor]:
        """Return samples that went back by the old flow and on by the new.

        :return: latents (N, D), and the component each was drawn from (N,).
        """
        assert self._before is not None
        mixture, flow = model.alignment.mixture(index), self._before[index]
        device = mixture.means.device
        height, width, _ = model.layout.levels[index]
        weights = mixture.log_weights[category].exp()
        component = torch.multinomial(weights.cpu(), self.samples, replacement=True)
        component = component.to(device)
        noise = torch.randn(self.samples, mixture.means.shape[2]).to(device)
        z = mixture.means[category, component].clone()
        for own in range(self.components):
            rows = component == own
            # covariance⁻¹ = R Rᵀ, so R⁻ᵀ is a root of the covariance
            root = mixture.precision_roots[category, own].T
            z[rows] += torch.linalg.solve_triangular(root, noise[rows].T, upper=False).T
        positions = torch.randint(height * width, (self.samples,)).to(device)
        x = flow.inverse(z, model.condition(index, positions))  # type: ignore[operator]
        finite = x.isfinite().all(1)
        z = model.latents_at(index, x[finite], positions[finite])
        return z, component[finite]

    def _fitted(
        self, z: Tensor, component: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.update == "em":
            component = None
        return fitted_mixture(
            z,
            self.components,
            self.covariance,
            component,
            self.shrinkage,
            self.seed or 0,
        )


def drawn_features(
    model: FlowModel, index: int, x: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Return feature vectors of positions drawn from images.

    :param model: a model.
    :param index: level.
    :param x: features (N, size).
    :param count: how many at most.
    :return: (count, D), and the position of each (count,).
    """
    height, width, _ = model.layout.levels[index]
    level = model.layout.unflatten(x)[index].flatten(0, 2)
    rows = torch.randperm(len(level))[:count].to(level.device)
    return level[rows], rows % (height * width)


def drawn_latents(model: FlowModel, index: int, x: Tensor, count: int) -> Tensor:
    """Return latents of positions drawn from images, see :func:`drawn_features`.

    :param model: a model in evaluation mode.
    """
    return model.latents_at(index, *drawn_features(model, index, x, count))


def fitted_mixture(
    z: Tensor,
    components: int,
    covariance: AlignedCovariance = "full",
    component: Tensor | None = None,
    shrinkage: float = 1e-2,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, means and precision roots of a mixture of latents.

    :param z: (N, D).
    :param components: K.
    :param covariance: see :func:`aligned_mixture`.
    :param component: the group of each latent (N,); found by stepwise EM by default.
    :param shrinkage: see :func:`aligned_mixture`.
    :param seed: of the start of the EM.
    """
    if component is None and components > 1:
        learner = IncrementalGMM(z.shape[1], components, step_power=0.7, seed=seed)
        learner.to(z.device)
        for _ in range(3):
            for part in torch.split(z, 2000):
                learner.partial_fit(part)
        component = learner.predict(z)
    elif component is None:
        component = torch.zeros(len(z), dtype=torch.long, device=z.device)
    return aligned_mixture(z, component, components, covariance, shrinkage)
