"""PackNet on the flow-GMM: each task owns flow weights and its categories' mixtures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.hgad.flow import Neighbours
from avalanche_ad.models.hgad.flow_gmm import FlowGMM
from avalanche_ad.models.hgad.latents import Latents
from avalanche_ad.models.hgad.mixture import HierarchicalMixture
from avalanche_ad.models.hgad.options import PackNetFlowGMMOptions
from avalanche_ad.models.hgad.task_latents import TaskLatents, by_task, in_order
from avalanche_ad.models.latents import attach_latents, latents_of
from avalanche_ad.models.loading import replaced
from avalanche_ad.models.scoring import AnomalyScores
from avalanche_ad.models.task_parameters import (
    OF_TASKS,
    PrunedLinear,
    TaskModule,
    TaskRouter,
)

__all__ = ["PackNetFlowGMM"]


class TaskBlock(TaskModule, AllInOneBlock):  # type: ignore[misc]
    """A coupling block whose global affine is kept once a task."""


class TaskNeighbours(TaskModule, Neighbours):
    """A convolution of neighbours that is kept once a task."""


class OwnedMixture(TaskModule, HierarchicalMixture):
    """A mixture whose categories belong each to one task."""

    owned = ("centers", "class_logits", "inner_logits")


class PackNetFlowGMM(FlowGMM):
    """A :class:`FlowGMM` in which every task owns a part and never moves again.

    Of each linear layer of the coupling networks a task owns the weights that it did
    not give up when it was pruned, and it computes with those of its own and of the
    tasks before it. A task also owns the mixtures of its categories: centres, φ and ψ.
    Biases, the blocks' global affine and the convolutions of neighbours are kept once a
    task, a few hundredths of the weights, where Avalanche's PackNet freezes biases with
    the first task: they set the location and the volume of a density, and a flow that
    must keep the first task's gives its own images a lower likelihood, so that more of
    them are taken for another task's. What a finished task owns is guarded against the
    optimizer itself: gradient masks alone do not stop momentum and weight decay.

    Training sees the current task alone: its subset, its centres, and φ normalised over
    its categories. In evaluation every task's subset computes its own latents, so the
    cost grows with the number of tasks. They are densities of the same features, J
    included, and compare: no task identity is needed at test. With n_t of n categories
    in task t,

        out_c = mean_l mean_p [−½ d_c − ½D log 2π + J_t] / √D
                + mean_l log_softmax(φ of task t)_c + log(n_t / n),

    since nothing ties the φ of tasks trained apart, and a category of a small task
    should not be likelier for it. An image is then scored as if the task of its
    category were all there is: by that task's subset, its entropy over that task's
    centres. So the scores of an image do not change as tasks are added, unless its
    category is inferred otherwise; an entropy over the densities of all tasks would
    rise with every task that comes near. A task of one category has nothing to be
    uncertain about: once there is one, all images are scored by the likelihood alone,
    or the scores of one test split would be of two scales.

    The inference is as good as the densities: a task that had little to train with,
    weights or time, loses images to those before it. A task identity is only ever given
    where the category is: in oracle scores, which are always reported as such.

    Takes the arguments of :class:`FlowGMM`, those after the second by keyword, except
    ``categories_at_start``. Add a task's categories, train, ``prune``,
    train on, and ``freeze_pruned``; without the last two everything is one task.

    :param own_mixtures: whether a task owns its mixtures too. If not, the flow alone is
        PackNet's: every task trains all mixtures known, as HGAD does, and the old ones
        move away from latents that stay.

    Source: Mallya and Lazebnik, "PackNet: Adding Multiple Tasks to a Single Network by
    Iterative Pruning", CVPR 2018, arXiv 1711.05769.

    >>> layout = FeatureLayout(((2, 2, 4),))
    >>> model = PackNetFlowGMM(layout, couplings=2, condition_channels=4)
    >>> model.add_categories([0])
    >>> model.prune(0.5)
    >>> model.freeze_pruned()
    >>> model.task_count
    1
    """

    kind = "packnet_flow_gmm"
    Options = PackNetFlowGMMOptions
    flow_per_task = True
    repeats_categories = False
    category_task: Tensor
    frozen_tasks: Tensor

    def __init__(
        self,
        layout: FeatureLayout,
        num_categories: int = 0,
        *,
        own_mixtures: bool = True,
        categories_at_start: bool = False,
        **options: Any,
    ) -> None:
        if categories_at_start:
            raise TrainingError(
                "categories_at_start cannot go with PackNet, where a category belongs "
                "to the task that brings it: leave one of them out"
            )
        super().__init__(layout, num_categories, **options)
        self.own_mixtures = own_mixtures
        self.router = TaskRouter()
        self.register_buffer("frozen_tasks", torch.tensor(0))
        none = torch.full((self.num_categories,), -1)
        self.register_buffer("category_task", none)
        for module in list(self.flows.modules()):
            if isinstance(module, nn.Linear):
                PrunedLinear.of(module, self.router)
            elif isinstance(module, Neighbours):
                TaskNeighbours.of(module, self.router)
            elif isinstance(module, AllInOneBlock):
                TaskBlock.of(module, self.router)
        for mixture in self.mixtures if own_mixtures else ():
            OwnedMixture.of(mixture, self.router)
        self.register_load_state_dict_post_hook(_guard_what_was_loaded)  # type: ignore[no-untyped-call]

    @property
    def task_count(self) -> int:
        """Number of tasks that are frozen: the index of the one to train."""
        return int(self.frozen_tasks)

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories learned so far, ascending."""
        known = super().known_categories
        task = self.router.shown
        if task is None or (self.training and not self.own_mixtures):
            return known
        return known[self.category_task[known] == task]

    def resize(self, num_categories: int) -> None:
        """Make room for categories without starting them."""
        self._release()
        super().resize(num_categories)
        if "category_task" in self._buffers:  # not yet in the base class's constructor
            room = self.num_categories - len(self.category_task)
            self.category_task = F.pad(self.category_task, (0, room), value=-1)
            self._guard()

    def add_categories(
        self, categories: Sequence[int], features: dict[int, Tensor] | None = None
    ) -> None:
        """Start the mixture groups of new categories for the current task.

        :raises TrainingError: when a category belongs to a frozen task.
        """
        task = self.task_count
        room = self.category_task.tolist()
        taken = [c for c in categories if c < len(room) and 0 <= room[c] < task]
        if taken:
            raise TrainingError(
                f"categories {taken} belong to tasks that PackNet has frozen: give "
                "each category to one experience, or train with another strategy"
            )
        self._release()
        super().add_categories(categories, features)
        self.category_task[list(categories)] = task
        self._guard()

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has, see :class:`LoadsWhole`."""
        self._release()  # nobody sees a difference
        super().make_room(state)
        for full, buffer in list(self.named_buffers()):
            new = state.get(full)
            if full.endswith(OF_TASKS) and new is not None and new.dim():
                path, _, name = full.rpartition(".")
                shape = torch.Size([len(new), *buffer.shape[1:]])
                replaced(self.get_submodule(path), name, shape)
        tasks = state.get("category_task")
        if tasks is not None and tasks.shape != self.category_task.shape:
            replaced(self, "category_task", torch.Size([len(tasks)]))

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a state that contradicts itself, see :class:`LoadsWhole`."""
        super().check_state(state)
        if len(self.category_task) != self.num_categories:
            raise ValueError(
                f"category_task is of {len(self.category_task)} categories, the "
                f"mixtures of {self.num_categories}"
            )
        frozen = int(state["frozen_tasks"])
        rows = {len(x) for name, x in state.items() if name.endswith(OF_TASKS)}
        if rows != {frozen}:
            raise ValueError(
                f"frozen_tasks is {frozen}, but what is kept once a task is of "
                f"{sorted(rows)} tasks"
            )

    # Pruning --------------------------------------------------------------------

    def prune(self, prune_proportion: float) -> None:
        """Give up a share of the current task's weights, of each layer alike.

        :param prune_proportion: share in [0, 1].
        :raises TrainingError: when it is outside.
        """
        if not 0 <= prune_proportion <= 1:
            raise TrainingError(
                "expected the prune proportion as a share from 0 to 1, got "
                f"{prune_proportion}"
            )
        for module in self._task_modules():
            if isinstance(module, PrunedLinear):
                module.prune(self.task_count, prune_proportion)

    def freeze_pruned(self) -> None:
        """End the current task: freeze what it owns, hand on what it gave up."""
        for module in self._task_modules():
            module.end_task(self.task_count)
        self.frozen_tasks += 1

    def _task_modules(self) -> list[TaskModule]:
        return [module for module in self.modules() if isinstance(module, TaskModule)]

    def _guard(self) -> None:
        """Guard what finished tasks own, where another task is under way."""
        task = self.task_count
        if not task or not bool((self.category_task == task).any()):
            return
        for module in self._task_modules():
            if isinstance(module, PrunedLinear):
                module.guard(module.owner < task)
            elif isinstance(module, OwnedMixture):
                of_task = self.category_task
                module.guard((of_task >= 0) & (of_task < task))

    def _release(self) -> None:
        for module in self._task_modules():
            module.release()

    # Forward and scores -------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image.

        :param x: features (N, layout.size).
        :return: (N, C); −1e4 for categories not seen yet and, in training, for those of
            other tasks. The attribute ``latents`` is a :class:`TaskLatents`, in
            training the current task's :class:`Latents`.
        """
        x = self.features_of(x)
        if self.training:
            with self.router.showing(self.task_count):
                return super().forward(x)
        known = self.known_categories
        output = x.new_full((len(x), self.num_categories), MASKED)
        tasks = []
        for task in sorted(set(self.category_task[known].tolist())):
            with self.router.showing(task):
                own = super().forward(x)
            latents = latents_of(own)
            assert isinstance(latents, Latents)
            tasks.append(latents)
            joint = own[:, latents.known] + math.log(len(latents.known) / len(known))
            output = output.index_copy(1, latents.known, joint)
        category = self.infer_category(output) if len(known) else known
        return attach_latents(output, TaskLatents(tasks, category))

    def log_likelihood_levels(self, latents: object, category: Tensor) -> list[Tensor]:
        """Return log p(x|c)/D per position under the task of c, (N, H, W) per level."""
        parts = [
            (rows, super(PackNetFlowGMM, self).log_likelihood_levels(own, chosen))
            for rows, own, chosen in by_task(latents, category)
        ]
        return in_order(parts)

    def negative_entropy_levels(
        self, latents: object, category: Tensor
    ) -> list[Tensor]:
        """Return Σ_c p_c log p_c over the categories of the inferred one's task."""
        if isinstance(latents, Latents):
            return super().negative_entropy_levels(latents, category)
        assert isinstance(latents, TaskLatents)
        parts = [
            (rows, super(PackNetFlowGMM, self).negative_entropy_levels(own, chosen))
            for rows, own, chosen in by_task(latents, latents.category)
        ]
        return in_order(parts)

    def alternatives(self, category: Tensor) -> Tensor:
        """Return how many categories each image's task has, (N,)."""
        task = self.category_task
        return (task[category][:, None] == task[self.known_categories]).sum(1)

    def score(
        self,
        output: Tensor,
        mask_size: tuple[int, int],
        category: Tensor | None = None,
        kind: str | None = None,
    ) -> AnomalyScores:
        """Return the scores of each image under the task of its category alone.

        As :meth:`AnomalyModel.score`; ``category`` gives the task with it.
        """
        latents = latents_of(output)
        if latents is None:
            return super().score(output, mask_size, category, kind)  # which refuses it
        category = self.infer_category(output) if category is None else category
        parts = []
        for rows, own, chosen in by_task(latents, category):
            part = attach_latents(output[rows], own)
            scores = super().score(part, mask_size, chosen, kind)
            parts.append((rows, [scores.image, scores.maps, scores.category]))
        return AnomalyScores(*in_order(parts))

    def sample_level(
        self,
        index: int,
        categories: Tensor,
        positions: Tensor,
        generator: torch.Generator | None = None,
        inner: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Draw latents and features of one level, each by the task of its category."""
        owners = self.category_task[categories]
        parts = []
        for task in sorted(set(owners.tolist())):
            rows = (owners == task).nonzero().flatten()
            with self.router.showing(task):
                drawn = super().sample_level(
                    index, categories[rows], positions[rows], generator, inner
                )
            parts.append((rows, list(drawn)))
        z, x = in_order(parts)
        return z, x


def _guard_what_was_loaded(model: PackNetFlowGMM, _: object) -> None:
    """Guard what a state brought, for the task that is under way in it."""
    model._guard()
