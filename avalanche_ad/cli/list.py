"""``avalanche-ad list``: what there is, and whose."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from avalanche_ad.cli.output import print_table
from avalanche_ad.errors import RecipeError
from avalanche_ad.registry import Registry, brought_by, unknown

__all__ = ["REGISTRIES", "list_"]

REGISTRIES = {
    "datasets": "avalanche_ad.datasets.registry.DATASETS",
    "backbones": "avalanche_ad.features.registry.BACKBONES",
    "metrics": "avalanche_ad.evaluation.registry.METRICS",
    "models": "avalanche_ad.models.registry.MODELS",
    "scores": "avalanche_ad.models.scores.SCORES",
    "plugins": "avalanche_ad.training.plugins.registry.PLUGINS",
}
"""What ``list`` shows of a registry → the registry's dotted path."""

_SORTS = ("strategies", "benchmarks", *REGISTRIES, "experiments")

Row = tuple[str, str, str]
"""A name, what it is, and the distribution that brings it if not this one."""


def list_(
    what: Annotated[
        str, typer.Argument(metavar="SORT", help=f"One of {', '.join(_SORTS)}.")
    ] = "strategies",
) -> None:
    """List what recipes and options can name; `list strategies` if no sort is given."""
    if what not in _SORTS:
        raise RecipeError(unknown("sort to list", what, _SORTS))
    rows = list(_rows(what))
    headings = (what, "what it is", "from")
    shown = [n for n in range(3) if n == 0 or any(row[n] for row in rows)]
    table = Table(box=None, pad_edge=False)
    for n in shown:
        table.add_column(headings[n])
    for row in rows:
        table.add_row(*(row[n] for n in shown))
    print_table(table)


def _rows(what: str) -> Iterator[Row]:
    if what == "scores":
        yield from _maps()
    if what in REGISTRIES:
        module, _, name = REGISTRIES[what].rpartition(".")
        yield from _registered(getattr(import_module(module), name))
    elif what == "experiments":
        from avalanche_ad.experiments.studies import STUDIES

        yield from ((name, question, "") for name, question in STUDIES.items())
    else:
        from avalanche_ad.recipes import list_recipes, read_toml

        kind: Literal["strategies", "benchmarks"]
        kind = "strategies" if what == "strategies" else "benchmarks"
        for name, path in list_recipes(kind).items():
            content = read_toml(path)
            yield name, content.get("summary") or content.get("title", ""), ""


def _registered(found: Registry[Any]) -> Iterator[Row]:
    """Yield what a registry has; other packages say it themselves, not imported."""
    for name, own in found.own.items():
        yield name, _plain((inspect.getdoc(own) or "").partition("\n")[0]), ""
    for name, entry in found.others.items():
        if name not in found.own:
            said = entry.dist.metadata["Summary"] if entry.dist else ""
            yield name, _plain(said or ""), brought_by(entry)


def _plain(text: str) -> str:
    """Return a docstring's line without its marks."""
    return re.sub(r":\w+:`~?\.?([^`]*)`|``([^`]*)``", r"\1\2", text)


def _maps() -> Iterator[Row]:
    """Yield the maps of the package's models, each of which is a score as well."""
    from avalanche_ad.models.registry import MODELS

    kinds: dict[str, list[str]] = {}
    for kind, made in MODELS.own.items():
        for name in made.maps:
            kinds.setdefault(name, []).append(kind)
    for name, of in kinds.items():
        yield name, f"The map of {', '.join(of)}.", ""
