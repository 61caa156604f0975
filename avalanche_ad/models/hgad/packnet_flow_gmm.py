"""PackNet on the flow-GMM: each task owns flow weights and its categories' mixtures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.hgad.flow_gmm import FlowGMM
from avalanche_ad.models.hgad.latents import Latents
from avalanche_ad.models.hgad.mixture import HierarchicalMixture
from avalanche_ad.models.latents import attach_latents, latents_of
from avalanche_ad.models.loading import replaced
from avalanche_ad.models.scoring import AnomalyScores

__all__ = ["FREE", "PackNetFlowGMM", "TaskLatents", "pruned"]

FREE = 255  # owner of a weight that the current task gave up; tasks are below it
_OF_TASKS = (
    "_of_tasks"  # suffix of the buffers (tasks, ...) of what is kept once a task
)


def pruned(owner: Tensor, weight: Tensor, task: int, proportion: float) -> Tensor:
    """Return the owners of a layer's weights after a task gave up its smallest.

    Of the n weights that the task owns, the ⌊proportion · n⌋ of least magnitude become
    :data:`FREE`; those of other tasks stay.

    :param owner: index of the task that owns each weight, 8-bit integers.
    :param weight: the weights, of the same shape.
    :param task: the task that gives up.
    :param proportion: share of its weights, in [0, 1].
    :return: the new owners, of the same shape.

    Source: Mallya and Lazebnik, "PackNet: Adding Multiple Tasks to a Single Network by
    Iterative Pruning", CVPR 2018, arXiv 1711.05769.
    """
    own = owner.flatten().eq(task).nonzero().flatten()
    order = weight.detach().flatten()[own].abs().argsort(stable=True)
    given_up = own[order[: int(proportion * len(own))]]
    return owner.flatten().index_fill(0, given_up, FREE).view_as(owner)


@dataclass(frozen=True)
class TaskLatents:
    """Dense latents of a minibatch, one set for each task's subset.

    :param tasks: latents of all N images, with the mixtures of the task's categories.
    :param category: the category inferred for each image (N,), by which it is judged
        where no other is given.
    """

    tasks: Sequence[Latents]
    category: Tensor


class PackNetFlowGMM(FlowGMM):
    """A :class:`FlowGMM` in which every task owns a part and never moves again.

    Of each linear layer of the coupling networks a task owns the weights that it did
    not give up when it was pruned, and it computes with those of its own and of the
    tasks before it. A task also owns the mixtures of its categories: centres, φ and ψ.
    Biases and the blocks' global affine are kept once a task, a few hundredths of the
    weights, where Avalanche's PackNet freezes biases with the first task: they set the
    location and the volume of a density, and a flow that must keep the first task's
    gives its own images a lower likelihood, so that more of them are taken for
    another task's. What a finished task owns is guarded against the optimizer itself:
    gradient masks alone do not stop momentum and weight decay.

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
    """

    kind = "packnet_flow_gmm"
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
        self.register_buffer("frozen_tasks", torch.tensor(0))
        for layer in self._prunable():
            owner = torch.zeros_like(layer.weight, dtype=torch.uint8)
            layer.register_buffer("owner", owner)
        for module, name, _, parameter in self._parts():
            if _once_a_task(module, name):
                none = parameter.detach().new_empty(0, *parameter.shape)
                module.register_buffer(name + _OF_TASKS, none)
        self._kept: dict[str, Tensor] = {}
        self._shown: int | None = None

    @property
    def task_count(self) -> int:
        """Number of tasks that are frozen: the index of the one to train."""
        return int(self.frozen_tasks)

    @property
    def known_categories(self) -> Tensor:
        """Indices of the categories learned so far, ascending."""
        known = super().known_categories
        if self._shown is None:
            return known
        return known[self.category_task[known] == self._shown]

    def resize(self, num_categories: int) -> None:
        """Make room for categories without starting them."""
        # the constructor of the base class comes here before this class's own
        guarded = bool(self.__dict__.get("_kept"))
        if guarded:
            self._release()
        super().resize(num_categories)
        old = self._buffers.get("category_task")
        if old is None:
            old = torch.zeros(0, dtype=torch.long)
        new = old.new_full((self.num_categories - len(old),), -1)
        self.register_buffer("category_task", torch.cat([old, new]))
        if guarded:
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
        super().make_room(state)
        for full, buffer in list(self.named_buffers()):
            new = state.get(full)
            if full.endswith(_OF_TASKS) and new is not None and new.dim():
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
        rows = {len(x) for name, x in state.items() if name.endswith(_OF_TASKS)}
        if rows != {frozen}:
            raise ValueError(
                f"frozen_tasks is {frozen}, but what is kept once a task is of "
                f"{sorted(rows)} tasks"
            )

    def state_accepted(self, state: Mapping[str, Tensor]) -> None:
        """Guard what the state holds, where something was guarded."""
        super().state_accepted(state)
        if self._kept:
            frozen = int(state.get("frozen_tasks", self.frozen_tasks))
            self._kept = self._guarded(state) if frozen else {}

    def state_dict(  # type: ignore[override]
        self,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the state, what is frozen as it was when it was."""
        if self._kept:
            self._release()
            self._guard()
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return state

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
        for layer in self._prunable():
            layer.owner = pruned(
                layer.get_buffer("owner"),
                layer.weight,
                self.task_count,
                prune_proportion,
            )

    def freeze_pruned(self) -> None:
        """End the current task: freeze what it owns, hand on what it gave up."""
        self._release()
        for module, name, _, parameter in self._parts():
            if _once_a_task(module, name):
                old = module.get_buffer(name + _OF_TASKS)
                new = torch.cat([old, parameter.detach()[None]])
                setattr(module, name + _OF_TASKS, new)
        self.frozen_tasks += 1
        for layer in self._prunable():
            owner = layer.get_buffer("owner")
            layer.owner = owner.masked_fill(owner == FREE, self.task_count)

    def _prunable(self) -> list[nn.Linear]:
        return [m for m in self.flows.modules() if isinstance(m, nn.Linear)]

    # What is frozen, and what a task sees ------------------------------------------

    def _parts(self) -> list[tuple[nn.Module, str, str, nn.Parameter]]:
        """Return every parameter with its module, its name there and its full name."""
        parts = []
        for full, parameter in self.named_parameters():
            path, _, name = full.rpartition(".")
            parts.append((self.get_submodule(path), name, full, parameter))
        return parts

    def _frozen(self, module: nn.Module, parameter: Tensor) -> Tensor:
        """Return where weights or a mixture belong to a frozen task."""
        task = self.task_count
        if isinstance(module, HierarchicalMixture):
            rows = (self.category_task >= 0) & (self.category_task < task)
            return rows.view(-1, *(1 for _ in parameter.shape[1:]))
        return module.get_buffer("owner") < task

    @torch.no_grad()
    def _guard(self) -> None:
        """Keep what is frozen, for an optimizer may move it without a gradient."""
        if self.task_count:
            self._kept = self._guarded({})

    def _guarded(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return copies of what may be frozen, of a state where it has them."""
        return {
            full: state.get(full, parameter).detach().to(parameter, copy=True)
            for module, name, full, parameter in self._parts()
            if not _once_a_task(module, name)
            and (self.own_mixtures or not isinstance(module, HierarchicalMixture))
        }

    @torch.no_grad()
    def _release(self) -> None:
        """Undo what an optimizer did to what is frozen, and stop keeping it."""
        for module, _, full, parameter in self._parts():
            if full in self._kept:
                parameter.copy_(self._intact(module, full, parameter))
        self._kept = {}

    def _intact(self, module: nn.Module, full: str, parameter: Tensor) -> Tensor:
        kept = self._kept.get(full)
        if kept is None:
            return parameter
        frozen = self._frozen(module, parameter)
        return torch.where(frozen, kept.to(parameter.device), parameter)

    def _seen_by(
        self, task: int, module: nn.Module, name: str, full: str, parameter: Tensor
    ) -> Tensor:
        """Return the value that a task computes with in the place of a parameter."""
        if _once_a_task(module, name):
            frozen = module.get_buffer(name + _OF_TASKS)
            return frozen[task] if task < len(frozen) else parameter
        value = self._intact(module, full, parameter)
        if isinstance(module, nn.Linear):
            return value.where(module.get_buffer("owner") <= task, 0.0)
        return value

    @contextmanager
    def _showing(self, task: int) -> Iterator[None]:
        """Be the plain flow-GMM of one task for a while, differentiably."""
        parts = self._parts()
        try:
            for module, name, full, parameter in parts:
                value = self._seen_by(task, module, name, full, parameter)
                module._parameters[name] = value  # type: ignore[assignment]
            shared = self.training and not self.own_mixtures
            self._shown = None if shared else task
            yield
        finally:
            self._shown = None
            for module, name, _, parameter in parts:
                module._parameters[name] = parameter

    # Forward and scores -------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Return joint log-likelihoods per image.

        :param x: packed features (N, layout.size).
        :return: (N, C); −1e4 for categories not seen yet and, in training, for those of
            other tasks. The attribute ``latents`` is a :class:`TaskLatents`, in
            training the current task's :class:`Latents`.
        """
        x = self.packed(x)
        if self.training:
            with self._showing(self.task_count):
                return super().forward(x)
        known = self.known_categories
        output = x.new_full((len(x), self.num_categories), MASKED)
        tasks = []
        for task in sorted(set(self.category_task[known].tolist())):
            with self._showing(task):
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
            for rows, own, chosen in _by_task(latents, category)
        ]
        return _in_order(parts)

    def negative_entropy_levels(
        self, latents: object, category: Tensor
    ) -> list[Tensor]:
        """Return Σ_c p_c log p_c over the categories of the inferred one's task."""
        if isinstance(latents, Latents):
            return super().negative_entropy_levels(latents, category)
        assert isinstance(latents, TaskLatents)
        parts = [
            (rows, super(PackNetFlowGMM, self).negative_entropy_levels(own, chosen))
            for rows, own, chosen in _by_task(latents, latents.category)
        ]
        return _in_order(parts)

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
        for rows, own, chosen in _by_task(latents, category):
            part = attach_latents(output[rows], own)
            scores = super().score(part, mask_size, chosen, kind)
            parts.append((rows, [scores.image, scores.maps, scores.category]))
        return AnomalyScores(*_in_order(parts))

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
            with self._showing(task):
                drawn = super().sample_level(
                    index, categories[rows], positions[rows], generator, inner
                )
            parts.append((rows, list(drawn)))
        z, x = _in_order(parts)
        return z, x


def _once_a_task(module: nn.Module, name: str) -> bool:
    """Whether a parameter is a bias or of a global affine."""
    weight = isinstance(module, nn.Linear) and name == "weight"
    return not weight and not isinstance(module, HierarchicalMixture)


def _tasks(latents: object) -> Sequence[Latents]:
    """Return the latents of every task's subset."""
    if isinstance(latents, Latents):
        return [latents]
    assert isinstance(latents, TaskLatents)
    return latents.tasks


def _by_task(
    latents: object, category: Tensor
) -> Iterator[tuple[Tensor, Latents, Tensor]]:
    """Yield for each task its images' rows, their latents and their categories."""
    tasks = _tasks(latents)
    known = torch.cat([own.known for own in tasks]) if tasks else category[:0]
    if unknown := sorted(set(category.tolist()) - set(known.tolist())):
        raise TrainingError(
            f"categories {unknown} have not been learned, so no task's subset can "
            "judge them: evaluate on the experiences seen so far"
        )
    for own in tasks:
        rows = torch.isin(category, own.known).nonzero().flatten()
        if len(rows):
            levels = [
                replace(
                    level,
                    z=level.z[rows],
                    log_det=level.log_det[rows],
                    aligned=None if level.aligned is None else level.aligned[rows],
                )
                for level in own.levels
            ]
            yield rows, replace(own, levels=levels), category[rows]


def _in_order(parts: Sequence[tuple[Tensor, list[Tensor]]]) -> list[Tensor]:
    """Join what the tasks returned for their rows, in the order of all rows."""
    back = torch.cat([rows for rows, _ in parts]).argsort()
    tensors = zip(*(tensors for _, tensors in parts), strict=True)
    return [torch.cat(tensor)[back] for tensor in tensors]
