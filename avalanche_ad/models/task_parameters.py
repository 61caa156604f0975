"""Parameters of which every task reads a value of its own.

As ``torch.nn.utils.parametrize`` does, reading ``module.weight`` computes the value;
here a router says of which task. The parameter itself keeps its name and may be
replaced by a longer one, and the modules can be pickled, none of which torch's can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FREE", "OF_TASKS", "PrunedLinear", "TaskModule", "TaskRouter", "pruned"]

FREE = 255  # owner of a weight that the current task gave up; tasks are below it
OF_TASKS = "_of_tasks"  # suffix of the buffers (tasks, ...) of what is kept once a task
_KEPT, _FROZEN = "_kept", "_frozen"  # of values guarded, and of where they are


class TaskRouter:
    """Says which task the modules that share it show, none at first.

    :ivar shown: index of the task, or ``None``: parameters are read as they are.

    >>> router = TaskRouter()
    >>> with router.showing(1):
    ...     router.shown
    1
    """

    def __init__(self) -> None:
        self.shown: int | None = None
        self._values: dict[tuple[TaskModule, str, bool], Tensor] = {}

    @contextmanager
    def showing(self, task: int) -> Iterator[None]:
        """Show a task for a while, in which no parameter may change."""
        before = self.shown, self._values
        self.shown, self._values = task, {}
        try:
            yield
        finally:
            self.shown, self._values = before

    def value(self, module: TaskModule, name: str, task: int) -> Tensor:
        """Return what a task reads in the place of a parameter, computed once."""
        key = module, name, torch.is_grad_enabled()
        if key not in self._values:
            self._values[key] = module.value(name, task)
        return self._values[key]


class TaskModule(nn.Module):
    """A module whose parameters are read as the router's task has them.

    A parameter named in ``owned`` is one for all tasks, each owning some entries: a
    subclass says in :meth:`value` what a task makes of it. The others are kept once a
    task: those of finished tasks lie in the buffer ``NAME_of_tasks`` (tasks, ...), and
    the parameter is that of the task under way. ``named_parameters`` and the state
    have the parameters themselves, whatever is shown.

    An optimizer moves entries even without a gradient, by momentum and weight decay.
    What :meth:`guard` keeps is read, and saved, as it was when it was guarded.

    >>> class Layer(TaskModule, nn.Linear):
    ...     '''Everything once a task.'''
    >>> router = TaskRouter()
    >>> layer = Layer.of(nn.Linear(1, 1), router)
    >>> _ = nn.init.zeros_(layer.bias)
    >>> layer.end_task(0)
    >>> _ = nn.init.ones_(layer.bias)
    >>> with router.showing(0):
    ...     float(layer.bias)
    0.0
    """

    owned: ClassVar[tuple[str, ...]] = ()
    router: TaskRouter

    @classmethod
    def of(cls, module: nn.Module, router: TaskRouter) -> Self:
        """Make a module of the class that this one extends into one of this.

        :param module: the module, changed and returned.
        :param router: shared by all modules that show their tasks together.
        """
        module.__class__ = cls
        assert isinstance(module, cls)
        module.router = router
        for name, parameter in module._once_a_task():
            none = parameter.detach().new_empty(0, *parameter.shape)
            module.register_buffer(name + OF_TASKS, none)
        return module

    def __getattr__(self, name: str) -> Any:
        """Return a parameter as the task shown has it; the rest as torch does."""
        found = super().__getattr__(name)
        task = self.router.shown
        if task is None or found is None or name not in self._parameters:
            return found
        return self.router.value(self, name, task)

    def value(self, name: str, task: int) -> Tensor:
        """Return what a task reads in the place of a parameter, differentiably.

        :param name: of the parameter.
        :param task: index of a finished task or of the one under way.
        """
        if name in self.owned:
            return self._intact(name)
        finished: Tensor = getattr(self, name + OF_TASKS)
        return finished[task] if task < len(finished) else self._parameter(name)

    @torch.no_grad()
    def end_task(self, task: int) -> None:
        """Keep for good what is kept once a task, and guard nothing any more.

        :param task: index of the task under way, which ends.
        """
        self.release()
        for name, parameter in self._once_a_task():
            finished = getattr(self, name + OF_TASKS)
            setattr(self, name + OF_TASKS, torch.cat([finished, parameter[None]]))

    @torch.no_grad()
    def guard(self, frozen: Tensor) -> None:
        """Keep what the owned parameters hold where it must not move any more.

        :param frozen: flags for entries, or for rows, of each of them.
        """
        self.release()
        for name in self.owned:
            parameter = self._parameter(name)
            where = frozen.view(*frozen.shape, *[1] * (parameter.dim() - frozen.dim()))
            self.register_buffer(name + _KEPT, parameter.clone(), persistent=False)
            self.register_buffer(name + _FROZEN, where, persistent=False)

    def release(self) -> None:
        """Undo what an optimizer did to what is guarded, and guard it no longer."""
        self._restore()
        for name in self.owned:
            self._buffers.pop(name + _KEPT, None)
            self._buffers.pop(name + _FROZEN, None)

    @torch.no_grad()
    def _restore(self) -> None:
        for name in self.owned:
            if name + _KEPT in self._buffers:
                self._parameter(name).copy_(self._intact(name))

    def _intact(self, name: str) -> Tensor:
        parameter = self._parameter(name)
        if name + _KEPT not in self._buffers:
            return parameter
        frozen, kept = getattr(self, name + _FROZEN), getattr(self, name + _KEPT)
        return torch.where(frozen, kept, parameter)

    def _parameter(self, name: str) -> nn.Parameter:
        """Return a parameter itself, whatever is shown."""
        found = self._parameters[name]
        assert found is not None
        return found

    def _once_a_task(self) -> list[tuple[str, nn.Parameter]]:
        own = self.named_parameters(recurse=False)
        return [(name, value) for name, value in own if name not in self.owned]

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._restore()
        super()._save_to_state_dict(*args, **kwargs)


class PrunedLinear(TaskModule, nn.Linear):
    """A linear layer of whose weights each task owns what it was not pruned of.

    A task computes with its own weights and those of the tasks before it; a bias is
    kept once a task. The buffer ``owner``, shaped as the weights, holds indices of
    tasks and :data:`FREE`.

    >>> router = TaskRouter()
    >>> layer = PrunedLinear.of(nn.Linear(4, 2, bias=False), router)
    >>> layer.prune(0, 0.75)
    >>> layer.end_task(0)
    >>> with router.showing(0):
    ...     int(layer.weight.count_nonzero())
    2
    """

    owned = ("weight",)
    owner: Tensor

    @classmethod
    def of(cls, module: nn.Module, router: TaskRouter) -> Self:
        """Make a linear layer one of which the first task owns every weight."""
        layer = super().of(module, router)
        owner = torch.zeros_like(layer.get_parameter("weight"), dtype=torch.uint8)
        layer.register_buffer("owner", owner)
        return layer

    def value(self, name: str, task: int) -> Tensor:
        """Return a task's bias, or the weights with 0 for those of later tasks."""
        value = super().value(name, task)
        return value.where(self.owner <= task, 0.0) if name == "weight" else value

    def prune(self, task: int, proportion: float) -> None:
        """Let a task give up a share of its weights, see :func:`pruned`."""
        self.owner = pruned(self.owner, self.weight, task, proportion)

    def end_task(self, task: int) -> None:
        """End a task, and hand what it gave up on to the next one."""
        super().end_task(task)
        self.owner = self.owner.masked_fill(self.owner == FREE, task + 1)


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

    >>> pruned(torch.tensor([0, 0, 1]).byte(), torch.tensor([3.0, -2.0, 1.0]), 0, 0.5)
    tensor([  0, 255,   1], dtype=torch.uint8)
    """
    own = owner.flatten().eq(task).nonzero().flatten()
    order = weight.detach().flatten()[own].abs().argsort(stable=True)
    given_up = own[order[: int(proportion * len(own))]]
    return owner.flatten().index_fill(0, given_up, FREE).view_as(owner)
