"""Backbones by name, as recipes and the command line give them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avalanche_ad.features.backbone import Backbone
from avalanche_ad.registry import Registry
from avalanche_ad.registry.arguments import check_options
from avalanche_ad.registry.building import built

__all__ = ["BACKBONES", "check_backbone", "make_backbone"]

BACKBONES: Registry[Backbone] = Registry(
    "backbone",
    "avalanche_ad.features.backbone.Backbone",
    "avalanche_ad.features.backbones",
    also=", or give the dotted path of a class",
)
"""The backbones by name; ``timm:<model>`` stands for all that timm has."""

_TIMM = "timm:"


def make_backbone(name: str, /, folder: Path | None = None, **options: Any) -> Backbone:
    """Return a backbone by its name.

    :param name: a name of ``BACKBONES``, such as ``"embedded"``; ``"timm:"`` and the
        name of any timm model; or the dotted path of a class.
    :param folder: where modules are looked for that are found nowhere else: that of
        the recipe's file.
    :param options: what the backbone's constructor takes.
    :raises RecipeError: for an unknown name, an unknown option or a wrong value.
    :raises WeightsError: when weights cannot be had.

    >>> make_backbone("filterbank").layout(128).levels[0][:2]
    (32, 32)
    """
    made, given = _found(name, folder)
    check_options(made, options, f"backbone {name!r}", given)
    backbone: Backbone = built(made, {**given, **options}, f"backbone {name!r}")
    return backbone


def check_backbone(
    name: str, options: Mapping[str, Any], folder: Path | None = None
) -> None:
    """Refuse a backbone or options of it that cannot be, without building it.

    No weights are read: a file that is missing or does not fit is told by
    :func:`make_backbone`.

    :param name: as for :func:`make_backbone`, like ``folder``.
    :param options: what its constructor would be given.
    :raises RecipeError: for an unknown name, an unknown option or a wrong value.

    >>> check_backbone("filterbank", {"strides": [4, 8]})
    """
    made, given = _found(name, folder)
    check_options(made, options, f"backbone {name!r}", given)
    made.check(**given, **options)


def _found(name: str, folder: Path | None) -> tuple[type[Backbone], dict[str, str]]:
    """Return a backbone's class, and what its name gives it."""
    if isinstance(name, str) and name.startswith(_TIMM) and name != _TIMM:
        return BACKBONES.find(f"{_TIMM}<model>"), {"name": name.removeprefix(_TIMM)}
    return BACKBONES.find(name, folder), {}
