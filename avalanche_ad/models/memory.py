"""What has to be kept to learn on, by kind."""

from __future__ import annotations

import inspect

from torch import Tensor, nn

from avalanche_ad.errors import TrainingError

__all__ = ["KINDS", "kept_tensors", "tensors_of"]

KINDS = ("exemplars", "statistics", "parameters")
"""What memory is of: images or parts of them, what stands for them, all else."""


def kept_tensors(module: nn.Module, kind: str) -> dict[str, list[Tensor]]:
    """Return the tensors that a module keeps, by kind of memory.

    :param module: any; one with a method ``memory`` answers for itself.
    :param kind: ``"exemplars"``, ``"statistics"`` or ``"parameters"``, of those that
        nothing else is said of.
    :raises TrainingError: for another kind.

    >>> [kind for kind in kept_tensors(nn.Linear(2, 2), "parameters")]
    ['parameters']
    """
    memory = getattr(module, "memory", None)
    if inspect.ismethod(memory):
        found: dict[str, list[Tensor]] = memory()
    else:
        found = tensors_of(module, getattr(module, "memory_kind", kind))
    if wrong := [name for name in found if name not in KINDS]:
        raise TrainingError(
            f"{type(module).__name__} keeps {wrong[0]!r} in memory: expected "
            f"{', '.join(KINDS)} as memory_kind, or as a key of memory()"
        )
    return found


def tensors_of(module: nn.Module, kind: str) -> dict[str, list[Tensor]]:
    """Return a module's own tensors as one kind, and what its parts keep.

    :param module: any.
    :param kind: of its own tensors, and of its parts' that nothing else is said of.
    """
    own = [*module._parameters.values(), *module._buffers.values()]
    found = {kind: [tensor for tensor in own if tensor is not None]}
    for part in module.children():
        for name, tensors in kept_tensors(part, kind).items():
            found.setdefault(name, []).extend(tensors)
    return found
