"""Single values that go over the recipes of a run, as ``--set`` takes them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from avalanche_ad.errors import RecipeError
from avalanche_ad.recipes.merge import over

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["apply_override", "parsed"]


def parsed(override: str) -> tuple[list[str], Any]:
    """Return the parts of an override's key, and its value.

    :param override: what ``--set`` was given.
    :raises RecipeError: when it is no ``key=value``.

    >>> parsed("training.epochs=4")
    (['training', 'epochs'], 4)
    """
    key, separator, text = override.partition("=")
    path = key.strip().split(".")
    if not separator or not all(path):
        raise RecipeError(
            f"--set {override!r}: expected section.key=value, such as training.epochs=4"
        )
    if path[0] == "base":
        raise RecipeError(
            f"--set {override!r}: a base belongs in a file: write a TOML file with "
            "title and base and give its path as the benchmark"
        )
    try:
        return path, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.strip().startswith(("[", "{")):
            raise RecipeError(
                f"--set {override!r}: not a TOML value: text in a list or a table "
                """needs quotes, such as '["bolt", "gear"]'"""
            ) from None
        return path, text


TYPES = (["model", "type"], ["features", "backbone"])
"""Keys that take the place of what belonged to the value before."""


def apply_override(
    stream: dict[str, Any],
    learner: dict[str, Any],
    override: str,
    path: Sequence[str],
    value: object,
    strategy: str,
) -> None:
    """Set what an override says, in the stream or in the learner.

    :param stream: the benchmark's table.
    :param learner: the strategy's.
    :param override: what ``--set`` was given, for errors.
    :param path: the parts of its key.
    :param value: its value.
    :param strategy: the strategy's name, for errors.
    :raises RecipeError: when there is no such place.
    """
    if path[0] == "plugins":
        plugins = learner.get("plugins", [])
        if not plugins:
            raise RecipeError(
                f"--set {override!r}: the strategy {strategy} has no plugins"
            )
        number = int(path[1]) if len(path) > 2 and path[1].isdecimal() else None
        if number is None or number >= len(plugins):
            raise RecipeError(
                f"--set {override!r}: expected plugins.N.key=value with N from 0 to "
                f"{len(plugins) - 1} for the strategy {strategy}"
            )
        _set(plugins[number], path[2:], value, override)
    elif len(path) == 1:
        stream[path[0]] = value
    elif path[0] == "options":
        _set(learner, path, value, override)
    elif path in TYPES:
        section, key = path
        own = {section: stream.get(section, {})}
        stream[section] = over(own, {section: {key: value}})[section]
    elif path[0] in (
        *("features", "model", "training"),
        *("synthetic", "dataset_options"),
    ):
        _set(stream, path, value, override)
    else:
        raise RecipeError(
            f"--set {override!r}: unknown section {path[0]!r}; there are features, "
            "model, training, synthetic, dataset_options, options and plugins.N"
        )


def _set(
    table: dict[str, Any], path: Sequence[str], value: object, override: str
) -> None:
    """Set a value in a table of tables, making those on the way."""
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override!r}: {part!r} holds no keys")
    table[path[-1]] = value
