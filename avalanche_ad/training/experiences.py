"""Which experiences a strategy trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["experiences_of"]


def experiences_of(strategy: Any) -> Sequence[Any]:
    """Return the experiences that a strategy trains on now: under joint training all.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> experiences_of(SimpleNamespace(experience="first"))
    ['first']
    """
    return getattr(strategy, "_experiences", None) or [strategy.experience]
