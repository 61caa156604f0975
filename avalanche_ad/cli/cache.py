"""``avalanche-ad cache``: the feature cache, listed or cleared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.table import Table

from avalanche_ad.cli.options import CacheFolder, open_cache
from avalanche_ad.cli.output import print_table, say
from avalanche_ad.errors import RecipeError, counted

if TYPE_CHECKING:
    from avalanche_ad.features import FeatureCache


def cache(
    action: Annotated[str, typer.Argument(help="list or clear")] = "list",
    folder: CacheFolder = None,
    key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Clear this entry alone; its first letters will do."),
    ] = None,
) -> None:
    """List the feature cache with its sizes, or clear it."""
    store = open_cache(folder)
    if action == "clear":
        freed = store.clear(None if key is None else [_full_key(store, key)])
        say(f"{freed / 1e6:.1f} MB freed in {store.root}")
        return
    if action != "list":
        raise RecipeError(f"cache {action!r}: expected list or clear")
    from datetime import datetime

    table = Table(box=None, pad_edge=False)
    for heading in ("key", "backbone", "data set", "images", "MB", "last used"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    entries = store.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(
            entry.key[:12],
            entry.backbone,
            entry.dataset,
            str(entry.images),
            f"{entry.bytes / 1e6:.1f}",
            used,
        )
    if entries:
        print_table(table)
    total = sum(entry.bytes for entry in entries) / 1e6
    say(f"{counted(len(entries), 'entry')}, {total:.1f} MB in {store.root}")


def _full_key(store: FeatureCache, start: str) -> str:
    """Return the only key that begins so, or what was given."""
    keys = [entry.key for entry in store.entries() if entry.key.startswith(start)]
    return keys[0] if len(keys) == 1 else start
