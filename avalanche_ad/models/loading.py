"""Load a state whole or not at all, whatever the number of its categories."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LoadsWhole", "replaced"]


def replaced(module: nn.Module, name: str, shape: torch.Size) -> None:
    """Put an empty parameter or buffer of another shape in the place of a module's.

    What was there keeps its values, so that it can be put back.
    """
    old = getattr(module, name)
    new = old.detach().new_empty(shape)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(module, name, new)


class LoadsWhole(nn.Module):
    """A module that takes the size of a state, and a state that fits or none.

    It may lie inside another module. Submodules say in ``category_tables`` which of
    their tensors have a row a category: these become as long as the state's. A state
    that torch would refuse (a key that is missing or not known, unless ``strict`` is
    ``False``; another shape), or that contradicts itself, leaves everything as it was.
    So does one whose extra state a module refuses: torch's ``set_extra_state`` comes
    before the tensors here, and once more where torch has it.

    >>> class Means(LoadsWhole):
    ...     category_tables = ("rows",)
    ...
    ...     def __init__(self, categories):
    ...         super().__init__()
    ...         self.register_buffer("rows", torch.zeros(categories, 2))
    >>> model = nn.Sequential(Means(1))
    >>> model.load_state_dict(nn.Sequential(Means(3)).state_dict())
    <All keys matched successfully>
    >>> model[0].rows.shape
    torch.Size([3, 2])
    """

    @property
    def category_tables(self) -> tuple[str, ...]:
        """Names of the tensors of this module that have a row a category."""
        return ()

    def updated_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state of an earlier version as this one has it.

        :param state: tensors and extra states by name, without prefix.
        :raises ValueError: when it cannot be told how.
        """
        return state

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the structure that a state has; its values come later.

        An override replaces tensors and modules, and changes none in place.

        :param state: tensors and extra states by name, without prefix.
        """
        for path, module in self.named_modules():
            for name in getattr(module, "category_tables", ()):
                own, new = getattr(module, name), state.get(_joined(path, name))
                if isinstance(new, Tensor) and new.dim() and new.shape != own.shape:
                    replaced(module, name, torch.Size([len(new), *own.shape[1:]]))

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a state that contradicts itself, once there is room for it.

        :raises ValueError: with the reason.
        """
        for path, module in self.named_modules():
            tables = getattr(module, "category_tables", ())
            rows = {name: len(getattr(module, name)) for name in tables}
            if len(set(rows.values())) > 1:
                found = ", ".join(f"{name} {count}" for name, count in rows.items())
                raise ValueError(
                    f"{path or type(module).__name__} has tables of different lengths "
                    f"({found})"
                )

    def state_accepted(self, state: Mapping[str, Tensor]) -> None:
        """Do what is to be done before a state that fits is loaded."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Check the whole of what is this module's, then load it or leave it."""
        before = _Before(self)
        given = [name for name in state_dict if name.startswith(prefix)]
        state = {name.removeprefix(prefix): state_dict[name] for name in given}
        problems, missing, unexpected = [], [], []
        try:
            state = self.updated_state(state)
            if state:  # an empty one says nothing of structure
                self.make_room(state)
            extra = _extra_states(self)
            for name, part in extra.items():
                if name in state:
                    part.set_extra_state(state[name])
            own = _tensors(self)
            missing = [name for name in [*own, *extra] if name not in state]
            unexpected = [name for name in state if name not in {**own, **extra}]
            problems = [
                problem
                for name, tensor in own.items()
                if name in state
                for problem in _misfits(prefix + name, tensor, state[name])
            ]
            if not problems:
                self.check_state({**own, **state})
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            problems = [f"{prefix or type(self).__name__}: no state of this: {reason}"]
        except BaseException:
            before.put_back()
            raise
        if problems or ((missing or unexpected) and _strict()):
            before.put_back()
            error_msgs += problems
            missing_keys += [prefix + name for name in missing]
            unexpected_keys += [prefix + name for name in unexpected]
            # torch goes on to the submodules: they are given what they have
            state = nn.Module.state_dict(self, keep_vars=True)
            extra = _extra_states(self)
            state |= {name: copy.deepcopy(state[name]) for name in extra}
        else:
            self.state_accepted(state)
        for name in given:
            del state_dict[name]
        state_dict.update({prefix + name: value for name, value in state.items()})
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _Before:
    """What a module is made of, and the extra states in it, to be put back."""

    def __init__(self, module: nn.Module) -> None:
        self._structure = [
            (part, [dict(held) for held in _held(part)]) for part in module.modules()
        ]
        self._extra = [
            (part, copy.deepcopy(part.get_extra_state()))
            for part in _extra_states(module).values()
        ]

    def put_back(self) -> None:
        """Let everything be as it was."""
        for part, kept in self._structure:
            for held, before in zip(_held(part), kept, strict=True):
                held.clear()
                held.update(before)
        for part, extra in self._extra:
            part.set_extra_state(extra)


def _held(module: nn.Module) -> tuple[dict[str, Any], ...]:
    return module._parameters, module._buffers, module._modules


def _extra_states(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that take an extra state, by its name in the module's."""
    return {
        _joined(path, "_extra_state"): part
        for path, part in module.named_modules(remove_duplicate=False)
        if type(part).set_extra_state is not nn.Module.set_extra_state
    }


def _tensors(module: nn.Module) -> dict[str, Any]:
    """Return a module's state as it lies there, without extra states."""
    return {
        name: value
        for name, value in nn.Module.state_dict(module).items()
        if name.rpartition(".")[2] != "_extra_state"
    }


def _misfits(name: str, own: Tensor, new: object) -> Iterator[str]:
    """Yield what keeps a value from going where a tensor is."""
    if not isinstance(new, Tensor):
        yield f"{name}: expected a tensor, got {type(new).__name__}"
    elif new.shape != own.shape:
        yield (
            f"size mismatch for {name}: the state has {tuple(new.shape)}, the model "
            f"{tuple(own.shape)}"
        )
    elif (
        # flags and indices: torch would make True of NaN
        new.is_floating_point()
        and not own.is_floating_point()
        and not bool((new.to(own.dtype).to(new.dtype) == new).all())
    ):
        yield f"{name}: expected values of {own.dtype}, got others of {new.dtype}"


def _strict() -> bool:
    """Whether the load under way is strict, which torch tells no module inside another.

    Where it cannot be told it is taken for strict, torch's default.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is nn.Module.load_state_dict.__code__:
            return bool(frame.f_locals.get("strict", True))
        frame = frame.f_back
    return True
