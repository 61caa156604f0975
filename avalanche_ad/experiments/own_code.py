"""The code that lies beside a recipe, by which a run is known to be of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from avalanche_ad.datasets.loading import file_digest
from avalanche_ad.registry.dotted_path import modules_beside

__all__ = ["own_code"]


def own_code(folders: Iterable[Path]) -> dict[str, str]:
    """Return a digest of each module beside a recipe that has been imported, by name.

    :param folders: those of the recipe's files that do not come with the package.
    """
    return {
        name: file_digest(path)
        for folder in sorted(set(folders))
        for name, path in modules_beside(folder).items()
    }
