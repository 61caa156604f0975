"""What has to be kept to learn on, by kind."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["kept_tensors", "tensors_of"]


def kept_tensors(module: nn.Module, kind: str) -> dict[str, list[Tensor]]:
    """Return the tensors that a module keeps, by kind of memory.

    :param module: any; one with a method ``memory`` answers for itself.
    :param kind: ``"exemplars"``, ``"statistics"`` or ``"parameters"``, of those that
        nothing else is said of.

    >>> [kind for kind in kept_tensors(nn.Linear(2, 2), "parameters")]
    ['parameters']
    """
    memory = getattr(module, "memory", None)
    if callable(memory):
        found: dict[str, list[Tensor]] = memory()
        return found
    return tensors_of(module, getattr(module, "memory_kind", kind))


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
