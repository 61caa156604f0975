"""Keyword arguments from a recipe, held against the class that takes them."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from avalanche_ad.errors import RecipeError

__all__ = ["check_arguments", "check_names", "check_options", "check_types"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_NOTHING = inspect.Parameter.empty
_FINITE = ConfigDict(allow_inf_nan=False)
_Count = Annotated[int, Field(ge=1)]
_NonNegative = Annotated[float, Field(ge=0)]
_Above0 = Annotated[float, Field(gt=0)]

# What arguments of Avalanche's classes and of this project's must be, where their
# annotations do not say it and nothing would stop them before they break training.
_NARROWER: dict[str, Any] = {
    **dict.fromkeys(
        (
            "batch_size",
            "batch_size_mem",
            "components",
            "delta_t",
            "every",
            "exemplars",
            "max_iter",
            "max_size",
            "mem_size",
            "n_inner_steps",
            "patience",
            "patterns_per_exp",
            "patterns_per_experience",
            "pool_size",
            "rank",
            "replay_size",
            "sample_size",
            "steps",
            "subsample",
        ),
        _Count,
    ),
    "center_lr": _NonNegative,
    "decay_factor": float,
    "eval_every": int,
    "ewc_lambda": _NonNegative,
    "lr": _Above0,
    # fewer have no variance
    **dict.fromkeys(("max_positions", "samples"), Annotated[int, Field(ge=2)]),
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
    "shrinkage": _NonNegative,
    "step_offset": _NonNegative,
    "step_power": Annotated[float, Field(gt=0.5, le=1)],
    "temperature": _Above0,
}


def check_arguments(made: type, arguments: Mapping[str, Any], what: str) -> None:
    """Refuse keyword arguments that a class does not take.

    :raises RecipeError: naming the argument and those that there are.
    """
    check_names(made, arguments, what)
    if needed := _needed(made, arguments):
        raise RecipeError(f"{what} {made.__name__} needs {', '.join(needed)}")


def check_options(
    made: type, options: Mapping[str, Any], called: str, given: Collection[str] = ()
) -> None:
    """Refuse options that a class does not take, lacks, or takes of another type.

    :param made: the class, which is not built.
    :param options: keyword arguments.
    :param called: begins an error, for example ``"backbone 'embedded'"``.
    :param given: arguments that are no options, since another gives them.
    :raises RecipeError: naming the first wrong option, and what there is.

    >>> class Bank:
    ...     def __init__(self, strides: list[int]): ...
    >>> check_options(Bank, {"strides": [4, 8]}, "backbone 'bank'")
    """
    known = [name for name in _owners(made) if name not in given]
    if unknown := sorted(options.keys() - set(known)):
        close = get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise RecipeError(
            f"{called} has no option {unknown[0]!r}{hint}; it takes "
            f"{', '.join(known) or 'none'}"
        )
    if needed := _needed(made, {*options, *given}):
        raise RecipeError(f"{called} needs the option {needed[0]!r}")
    check_types(made, options, called, named=False)


def check_names(made: type, names: Iterable[str], what: str) -> None:
    """Refuse names that are no keyword argument of a class.

    :raises RecipeError: naming the first, and those that there are.
    """
    known = _owners(made)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise RecipeError(
            f"{what} {made.__name__} takes no {unknown[0]!r}; it takes "
            f"{', '.join(known) or 'no arguments'}"
        )


def check_types(
    made: type, arguments: Mapping[str, Any], what: str, *, named: bool = True
) -> None:
    """Refuse values of another type than a class takes, and counts below one.

    The type is what the argument's annotation says, or else its default: a number goes
    where a number is, or a list of them. Arguments that are objects are not checked.

    :param named: whether an error names the class after ``what``.
    :raises RecipeError: naming the first argument, what was expected and what it is.
    """
    owners = _owners(made)
    where = f"{what} {made.__name__}" if named else what
    for name, value in arguments.items():
        expected = _expected(owners[name], name)
        try:
            TypeAdapter(expected, config=_FINITE).validate_python(value, strict=True)
        except PydanticUserError:
            continue  # a class that TOML cannot make
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input should", "should")
            # what TOML calls a list
            for word in ("an instance of Sequence", "a valid tuple"):
                reason = reason.replace(word, "a list")
            if "as a Sequence value" in reason:  # text, which is one for Python
                reason = "should be a list"
            raise RecipeError(f"{where}: {name} {reason}, got {value!r}") from None


def _needed(made: type, arguments: Collection[str]) -> list[str]:
    """Return the arguments that a class cannot do without and that are not there."""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [
        name
        for name, parameter in inspect.signature(made).parameters.items()
        if parameter.default is _NOTHING
        and parameter.kind not in variable
        and name not in arguments
    ]


def _owners(made: type) -> dict[str, type]:
    """Return the names of a class's keyword arguments, and which base takes each."""
    found: dict[str, type] = {}
    for base in made.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base).parameters.values())
        for parameter in parameters:
            if parameter.kind in _NAMED:
                found.setdefault(parameter.name, base)
        # ``**kwargs`` go on to the next class
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _expected(owner: type, name: str) -> Any:
    """Return the type of an argument, ``Any`` where nothing tells it."""
    ours = owner.__module__.startswith(("avalanche.", "avalanche_ad."))
    if ours and name in _NARROWER:
        return _NARROWER[name]
    parameter = inspect.signature(owner).parameters[name]
    if parameter.annotation is not _NOTHING:
        try:
            return typing.get_type_hints(owner.__init__)[name]  # type: ignore[misc]
        except (NameError, TypeError):  # names a class imported for type checkers alone
            return parameter.annotation
    default = parameter.default
    if isinstance(default, (bool, str)):
        return type(default)
    return float | list[float] if isinstance(default, (int, float)) else Any
