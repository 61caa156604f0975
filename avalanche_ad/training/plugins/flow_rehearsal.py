"""What the plugins that rehearse the flow's own samples have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.training.plugins.requirements import check_positions, required

__all__ = ["FlowRehearsalPlugin", "LevelSamples", "even_categories", "sample_pools"]

Pool = TypeVar("Pool")


class LevelSamples(NamedTuple):
    """Samples of one level: ``x = f⁻¹(z; position)``, z from a category's mixture.

    ``z`` (P, D) latents, ``x`` (P, D) features, ``positions`` (P,) indices into the
    level's positions, ``categories`` (P,).

    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> model.add_categories([0, 1])
    >>> samples = sample_pools(model, [0, 1], count=6)[0]
    >>> samples.x.shape, samples.draw(2).categories.shape
    (torch.Size([6, 8]), torch.Size([2]))
    """

    z: Tensor
    x: Tensor
    positions: Tensor
    categories: Tensor

    def draw(self, count: int) -> LevelSamples:
        """Return ``count`` of the samples, drawn with replacement."""
        rows = torch.randint(len(self.z), (count,)).to(self.z.device)
        return LevelSamples(*(part[rows] for part in self))


def even_categories(categories: list[int], count: int) -> Tensor:
    """Return ``count`` categories, every one equally often, give or take one."""
    return torch.tensor(categories).repeat(-(-count // len(categories)))[:count]


def sample_pools(
    model: FlowModel, categories: list[int], count: int
) -> list[LevelSamples]:
    """Draw samples of every level, even over categories and random in position.

    Every category is drawn from its main Gaussian, z ~ N(μ_c, I).

    :param model: the flow-GMM to sample from.
    :param categories: categories to draw.
    :param count: samples per level.
    """
    pools = []
    y = even_categories(categories, count).to(model.device)
    for index, (height, width, _) in enumerate(model.layout.levels):
        positions = torch.randint(height * width, (count,)).to(y.device)
        z, x = model.sample_level(index, y, positions, inner=False)
        pools.append(LevelSamples(z, x, positions, y))
    return pools


class FlowRehearsalPlugin(SupervisedPlugin, Generic[Pool]):  # type: ignore[misc]
    """Rehearse samples of earlier categories, drawn from the flow-GMM itself.

    Before the first step of an experience the model still is the one that learned the
    experiences before: what is called its snapshot where this is published. A pool of
    samples is drawn from it then, from which every step of the experience rehearses,
    and dropped at the end. So no copy of the model is kept or saved, and the cost is
    one inversion a pooled sample, not one a step.

    A subclass says what to draw and what to add to the loss.

    >>> class LikelyPlugin(FlowRehearsalPlugin[Tensor]):
    ...     def draw_pool(self, model, categories):
    ...         return model.sample(even_categories(categories, 6))
    ...     def rehearsal_loss(self, strategy, pool):
    ...         return -strategy.model(pool).amax(1).mean()
    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> model.add_categories([0, 1])
    >>> LikelyPlugin().draw_pool(model, [0, 1]).shape
    torch.Size([6, 128])
    """

    # a stray early image would count as the category learned
    needs_disjoint_categories = True
    needs_positions = False  # whether it maps single ones

    def __init__(self) -> None:
        super().__init__()
        self.learned: list[int] = []
        self.pool: Pool | None = None

    @abstractmethod
    def draw_pool(self, model: FlowModel, categories: list[int]) -> Pool:
        """Draw samples of categories from the model, without a graph."""

    @abstractmethod
    def rehearsal_loss(self, strategy: Any, pool: Pool) -> Tensor:
        """Return what to add to the loss of a step."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Draw the pool; there is nothing to draw before the first experience."""
        model = required(strategy.model, FlowModel, self, "samples from the flow of")
        check_positions(model.kernel, type(self))
        if self.learned:
            self.pool = self.draw_pool(model, self.learned)

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add to the loss."""
        if self.pool is not None:
            strategy.loss += self.rehearsal_loss(strategy, self.pool)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Drop the pool and note the categories that can be drawn from now on."""
        self.pool = None
        new = strategy.experience.classes_in_this_experience
        self.learned = sorted({*self.learned, *new})
