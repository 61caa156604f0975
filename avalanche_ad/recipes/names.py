"""Names in a benchmark that are looked up where the classes are: one function a sort.

They are looked up when a recipe is read, not when a record of a run is: its data set's
package may be gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from avalanche_ad.errors import RecipeError
from avalanche_ad.registry import unknown

__all__ = ["check_backbone", "check_dataset_name"]


def check_dataset_name(name: str, folder: Path | None = None) -> None:
    """Refuse a data set that there is not.

    :param name: a benchmark's ``dataset``.
    :param folder: that of the recipe which states it, where its module may be.
    :raises RecipeError: naming those that there are.

    >>> check_dataset_name("mvtec_ad")
    """
    from avalanche_ad.datasets import DATASETS

    if name not in DATASETS:
        raise RecipeError(unknown("data set", name, DATASETS))


def check_backbone(
    name: str, options: Mapping[str, Any], folder: Path | None = None
) -> None:
    """Refuse a backbone that there is not. It imports torch: call it last.

    :param name: ``backbone`` of ``[features]``.
    :param options: ``[features.options]``.
    :param folder: that of the recipe which states it, where its module may be.
    :raises RecipeError: naming those that there are.

    >>> check_backbone("filterbank", {})
    """
    from avalanche_ad.features import backbone_names

    forms = backbone_names()
    if not any(fnmatchcase(name, form.replace("<model>", "?*")) for form in forms):
        raise RecipeError(unknown("backbone", name, forms))
