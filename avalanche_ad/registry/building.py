"""Make an object of a class that anybody may have written."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from avalanche_ad.errors import AvalancheADError, RecipeError

__all__ = ["built"]


def built(
    made: Callable[..., Any],
    arguments: Mapping[str, Any],
    what: str,
    fails: str = "cannot be built",
    error_class: type[AvalancheADError] = RecipeError,
) -> Any:
    """Return what a call gives, any failure of it told in a line.

    :param made: a class, or what else is called.
    :param arguments: its keyword arguments.
    :param what: it is called in an error, such as ``"plugin EWCPlugin"``.
    :param fails: what it does then.
    :param error_class: of the error.
    :raises AvalancheADError: of the class given, with the reason; the call's own go
        through.

    >>> built(int, {}, "number")
    0
    """
    try:
        return made(**arguments)
    except AvalancheADError:
        raise
    except Exception as error:  # whatever a class of the user's own does
        # an assertion without words: the line says what was expected
        line = traceback.extract_tb(error.__traceback__)[-1].line
        reason = str(error).splitlines()[0] if str(error) else line
        name = type(error).__name__
        raise error_class(f"{what} {fails}: {reason or name}") from error
