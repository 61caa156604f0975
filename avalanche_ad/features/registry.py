"""Backbones by name, as recipes and the command line give them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from avalanche_ad.errors import RecipeError
from avalanche_ad.features.backbone import Backbone, TimmBackbone
from avalanche_ad.features.filterbank import FilterBank

__all__ = ["backbone_names", "make_backbone"]

_TIMM = "timm:"


def backbone_names() -> tuple[str, ...]:
    """Return the forms of name that :func:`make_backbone` takes."""
    return ("filterbank", f"{_TIMM}<model>")


def make_backbone(name: str, **options: Any) -> Backbone:
    """Return a backbone by its name.

    :param name: ``"filterbank"``, or ``"timm:"`` and the name of any timm model.
    :param options: what the backbone's constructor takes.
    :raises RecipeError: for an unknown name, an unknown option or a wrong value.
    :raises WeightsError: when weights cannot be had.

    >>> make_backbone("filterbank").layout(128).levels[0][:2]
    (32, 32)
    """
    if name == "filterbank":
        _check_options(name, FilterBank, options)
        return FilterBank(**options)
    if name.startswith(_TIMM) and len(name) > len(_TIMM):
        _check_options(name, TimmBackbone, options)
        return TimmBackbone(name.removeprefix(_TIMM), **options)
    raise RecipeError(
        f"unknown backbone '{name}'; expected one of {', '.join(backbone_names())}"
    )


def _check_options(
    name: str, maker: Callable[..., Backbone], options: dict[str, Any]
) -> None:
    known = [key for key in inspect.signature(maker).parameters if key != "name"]
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise RecipeError(
            f"backbone '{name}' has no option '{unknown[0]}'; "
            f"it takes {', '.join(known)}"
        )
