"""The ``[model]`` section: a class of options for every type of model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avalanche_ad.errors import RecipeError
from avalanche_ad.registry.options import ModelOptions

if TYPE_CHECKING:
    from avalanche_ad.models import AnomalyModel

__all__ = ["DEFAULT_MODEL", "model_class", "model_options"]

DEFAULT_MODEL = "flow_gmm"
"""The type of a ``[model]`` that names none."""


def model_class(name: object, folder: Path | None = None) -> type[AnomalyModel]:
    """Return the class of a ``[model]`` of some type. It imports torch.

    :param name: the type.
    :param folder: that of the recipe which states it, where its module may be.
    :raises RecipeError: when there is no such type of model.
    """
    from avalanche_ad.models.registry import MODELS

    made = MODELS.find(name, folder)
    maps, options = getattr(made, "maps", ()), getattr(made, "Options", None)
    lacks = ""
    if not isinstance(getattr(made, "kind", None), str):
        lacks = "kind, its name"
    elif not (isinstance(maps, tuple) and maps):
        lacks = "maps, a tuple of their names"
    elif not (isinstance(options, type) and issubclass(options, ModelOptions)):
        lacks = "Options, a subclass of ModelOptions"
    if lacks:
        raise RecipeError(f"model {name!r}: {made.__name__} lacks {lacks}")
    return made


def model_options(name: object, folder: Path | None = None) -> type[ModelOptions]:
    """Return what ``[model]`` is validated by when it has a type.

    :param name: the type.
    :param folder: that of the recipe which states it, where its module may be.
    :raises RecipeError: when there is no such type of model.

    >>> model_options("flow_gmm").__name__
    'FlowGMMOptions'
    """
    return model_class(name, folder).Options
