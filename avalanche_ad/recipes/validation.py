"""From a table to a recipe, or one line that says which key is wrong and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from avalanche_ad.errors import RecipeError
from avalanche_ad.recipes.model_options import DEFAULT_MODEL, model_options
from avalanche_ad.recipes.schema import BenchmarkRecipe

__all__ = ["validated"]

_UNKNOWN = "extra_forbidden"  # pydantic's name of it

Kind = TypeVar("Kind", bound=BaseModel)


def validated(
    kind: type[Kind],
    content: Mapping[str, Any],
    where: str,
    folder: Path | None = None,
    more: tuple[str, ...] = (),
) -> Kind:
    """Return the recipe of a kind that the content is.

    :param kind: its class.
    :param content: what a file says, or several do.
    :param where: what an error names as its place.
    :param folder: that of the file which states the type of the model.
    :param more: keys there are besides the recipe's own.
    :raises RecipeError: naming the first key that is wrong. An unknown one goes before
        a missing one, which may be the same one misspelt.

    >>> from avalanche_ad.recipes import TrainingRecipe
    >>> validated(TrainingRecipe, {"epochs": 4}, "mine.toml").batch_size
    8
    """
    try:
        return kind.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        problem = min(_problems(error), key=lambda found: found["type"] != _UNKNOWN)
        parts = [str(part) for part in problem["loc"]]
        key = ".".join(parts)
        if problem["type"] == _UNKNOWN:
            known = _keys_beside(kind, parts, content, folder)
            known += more if len(parts) == 1 else ()
            close = get_close_matches(parts[-1], known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(
                f"{where}: unknown key {key!r}{hint}; known: {', '.join(known)}"
            ) from None
        if problem["type"] == "value_error":  # of a validator of ours
            place = f"key {key!r}: " if parts else ""
            reason = str(problem["msg"]).removeprefix("Value error, ")
            raise RecipeError(f"{where}: {place}{reason}") from None
        found = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
        # pydantic's word for what TOML calls a list
        reason = problem["msg"].replace("tuple", "list").replace("Tuple", "List")
        raise RecipeError(f"{where}: key {key!r}: {reason}{found}") from None


def _problems(error: ValidationError) -> Iterator[Mapping[str, Any]]:
    """Yield what is wrong, that of a model's own options at its place in the whole."""
    for problem in error.errors():
        inner = problem.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            for one in _problems(inner):
                yield {**one, "loc": (*problem["loc"], *one["loc"])}
        else:
            yield problem


def _keys_beside(
    kind: type[BaseModel],
    parts: Sequence[str],
    content: Mapping[str, Any],
    folder: Path | None,
) -> tuple[str, ...]:
    """Return the keys that there are where an unknown one was given."""
    if len(parts) == 1:
        return tuple(kind.model_fields)
    if kind is BenchmarkRecipe and parts[0] == "model":
        name = content["model"].get("type", DEFAULT_MODEL)
        return tuple(model_options(name, folder).model_fields)
    section = kind.model_fields[parts[0]].annotation
    for made in (section, *get_args(section)):  # as it is, optional, or in a list
        if isinstance(made, type) and issubclass(made, BaseModel):
            return tuple(made.model_fields)
    return ()
