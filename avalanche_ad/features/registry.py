"""Backbones by name, as recipes and the command line give them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from avalanche_ad.errors import RecipeError
from avalanche_ad.features.backbone import Backbone, TimmBackbone
from avalanche_ad.features.embedded import EmbeddedBackbone
from avalanche_ad.features.filterbank import FilterBank

__all__ = ["backbone_names", "make_backbone"]

_TIMM = "timm:"
_OWN: dict[str, Callable[..., Backbone]] = {
    "embedded": EmbeddedBackbone,
    "filterbank": FilterBank,
}


def backbone_names() -> tuple[str, ...]:
    """Return the forms of name that :func:`make_backbone` takes."""
    return (*_OWN, f"{_TIMM}<model>")


def make_backbone(name: str, **options: object) -> Backbone:
    """Return a backbone by its name.

    :param name: ``"embedded"``, ``"filterbank"``, or ``"timm:"`` and the name of any
        timm model.
    :param options: what the backbone's constructor takes.
    :raises RecipeError: for an unknown name, an unknown option or a wrong value.
    :raises WeightsError: when weights cannot be had.

    >>> make_backbone("filterbank").layout(128).levels[0][:2]
    (32, 32)
    """
    maker: Callable[..., Backbone]
    if name in _OWN:
        maker = _OWN[name]
    elif name.startswith(_TIMM) and len(name) > len(_TIMM):
        maker = partial(TimmBackbone, name.removeprefix(_TIMM))
    else:
        raise RecipeError(
            f"unknown backbone '{name}'; expected one of {', '.join(backbone_names())}"
        )
    known = list(inspect.signature(maker).parameters)
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise RecipeError(
            f"backbone '{name}' has no option '{unknown[0]}'; "
            f"it takes {', '.join(known)}"
        )
    return maker(**options)
