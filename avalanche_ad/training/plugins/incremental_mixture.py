"""Learn the mixture by statistics and the flow by gradient, in one training loop."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from avalanche_ad.models.evaluating import seeded
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.models.gaussians import CategoryMixtures, IncrementalGMM
from avalanche_ad.registry.options import AtLeastTwo, Count, NonNegative
from avalanche_ad.training.dynamic import features_by_category
from avalanche_ad.training.plugins.statistics_keeper import StatisticsKeeper

__all__ = ["IncrementalMixturePlugin"]


class IncrementalMixturePlugin(StatisticsKeeper):
    """Train the flow under mixtures that follow it by stepwise EM.

    HGAD trains unit Gaussians and flow together, by gradient. Here a category has the
    aligned mixture of full-covariance Gaussians that :class:`GMMAlignmentPlugin` gives
    it, from the start of its experience: the moments of samples of its feature
    statistics under the flow as it is then. The flow is trained by

        L = −mean_p [log p(z|y) + J] / D                       (``aligned_loss``),

    and every ``every`` steps the mixtures of the categories seen since take the latents
    of those steps, rehearsed ones included, in one step of stepwise EM:
    S ← (1−γ) S + γ s with γ = (n + n₀)^−α after n of them (Cappé & Moulines, 2009; see
    :class:`~avalanche_ad.models.gaussians.IncrementalGMM`).

    With ``center_lr`` the means also take the loss's gradient, in steps of that length;
    with 0 it stops at the mixture, which statistics alone move.

    :param every: steps of training to one of the EM.
    :param step_power: α in (0.5, 1].
    :param step_offset: n₀; the larger, the slower the mixtures follow.
    :param center_lr: learning rate of the means.
    :param samples: latents per category and level that a mixture starts from.
    :param options: see :class:`StatisticsKeeper`; ``components`` are those of the
        mixtures too.

    >>> IncrementalMixturePlugin(every=4, statistics="low_rank").components
    10
    """

    aligns = True

    def __init__(
        self,
        every: Count = 8,
        step_power: Annotated[float, Field(gt=0.5, le=1)] = 0.7,
        step_offset: NonNegative = 20.0,
        center_lr: NonNegative = 0.0,
        samples: AtLeastTwo = 20_000,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.every = every
        self.step_power = step_power
        self.step_offset = step_offset
        self.center_lr = center_lr
        self.samples = samples
        self._learners: dict[tuple[int, int], IncrementalGMM] = {}
        self._gathered: dict[tuple[int, int], list[Tensor]] = {}
        self._steps = 0

    # Hooks ----------------------------------------------------------------------

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Start the mixtures of new categories, and set the loss."""
        super().before_training_exp(strategy, *args, **kwargs)
        model: FlowModel = strategy.model
        with seeded(self.seed or 0):  # a data loader draws too
            self.keep(model, features_by_category(strategy.adapted_dataset))
            self._start(model)
        model.alignment.trains_flow = True
        if self._gather not in strategy._criterion.listeners:
            strategy._criterion.listeners.append(self._gather)

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Move the means against their gradient."""
        for index, mixture in enumerate(strategy.model.alignment.mixtures):
            step, mixture.means.grad = mixture.means.grad, None
            if step is None:
                continue
            with torch.no_grad():
                mixture.means -= self.center_lr * step
            for category in step.flatten(1).abs().amax(1).nonzero().flatten().tolist():
                self._learners[category, index].mean = (
                    mixture.means[category].detach().clone()
                )

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Let the mixtures take the latents gathered."""
        self._steps += 1
        if self._steps % self.every == 0:
            self._learn(strategy.model)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Let the mixtures take what is left, and keep no more than they are."""
        self._learn(strategy.model)
        self._learners = {}
        for mixture in strategy.model.alignment.mixtures:
            mixture.means.requires_grad_(False)

    # Mixtures -------------------------------------------------------------------

    def _start(self, model: FlowModel) -> None:
        """Give every category with statistics a learner where the flow maps it now."""
        alignment = model.alignment
        assert alignment.statistics is not None
        self._gathered, self._learners, self._steps = {}, {}, 0
        started = alignment.start(self.components, model.num_categories)
        for index, mixture in enumerate(started):
            mixture.means.requires_grad_(False)
            for category in alignment.statistics.categories.tolist():
                found = alignment.moments(model, index, category, self.samples)
                learner = IncrementalGMM(
                    found.mean.shape[1],
                    self.components,
                    regularization=self.shrinkage,
                    step_power=self.step_power,
                    step_offset=self.step_offset,
                ).to(mixture.means)
                self._learners[category, index] = learner.start(found.to(learner.mean))
                self._put(mixture, category, learner)
            mixture.means.requires_grad_(self.center_lr > 0)

    @torch.no_grad()
    def _gather(self, latents: Any, target: Tensor) -> None:
        if not self._learners:  # a loss outside of training, as EWC's at its end
            return
        for index, level in enumerate(latents.levels):
            for category in sorted(set(target.tolist())):
                z = level.z[target == category].detach().flatten(0, 2)
                self._gathered.setdefault((category, index), []).append(z)

    @torch.no_grad()
    def _learn(self, model: FlowModel) -> None:
        if self._gathered:
            model.alignment.recipe = None  # they follow from statistics no more
        for (category, index), parts in self._gathered.items():
            mixture = model.alignment.mixture(index)
            learner = self._learners[category, index].partial_fit(torch.cat(parts))
            self._put(mixture, category, learner)
        self._gathered = {}

    @staticmethod
    @torch.no_grad()
    def _put(mixture: CategoryMixtures, category: int, learner: IncrementalGMM) -> None:
        found = learner.parameters_
        weights = found.weight.clamp_min(torch.finfo(found.weight.dtype).tiny)
        mixture.put(category, weights, found.mean, learner.precision_roots)
