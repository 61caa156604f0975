"""The ``[model]`` section: a class of options for every type of model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from avalanche_ad.errors import RecipeError
from avalanche_ad.registry import unknown
from avalanche_ad.registry.options import NonNegative, Options, Positive

__all__ = [
    "DEFAULT_MODEL",
    "FeatureGMMRecipe",
    "FlowGMMRecipe",
    "ModelOptions",
    "model_options",
]

DEFAULT_MODEL = "flow_gmm"
"""The type of a ``[model]`` that names none."""

ScoreName = Literal["product", "likelihood", "uncertainty"]


class ModelOptions(Options):
    """What ``[model]`` takes for one type of model.

    >>> model_options("feature_gmm")(type="feature_gmm").trained
    False
    """

    trained: ClassVar[bool] = True
    """Whether minibatches train it; else a plugin fits it, and its epochs are 0."""

    type: str


class FlowGMMRecipe(ModelOptions):
    """``[model]`` of type ``flow_gmm``: HGAD by default, with position calibration.

    Benchmarks and strategies share the section, so some of it may not be read:
    ``likelihood_map`` is of scores without position calibration, ``pattern_period`` of
    centres that start in the pattern.

    >>> FlowGMMRecipe(couplings=6).centers_per_category
    10
    """

    type: str = "flow_gmm"
    couplings: Positive = 12
    hidden_ratio: Annotated[float, Field(gt=0)] = 2.0
    clamp: Annotated[float, Field(gt=0)] = 1.9
    condition_channels: Annotated[int, Field(ge=0, multiple_of=4)] = 256
    flow_start: Literal["random", "rotation"] = "random"
    centers_per_category: Positive = 10
    center_init: Literal["pattern", "orthogonal", "data"] = "pattern"
    pattern_period: Positive = 16
    position_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    score_kind: ScoreName = "product"
    smoothing_sigma: NonNegative = 4.0
    likelihood_map: Literal["log", "probability"] = "log"
    position_calibration: bool = True
    categories_at_start: bool = False
    packnet: bool | Literal["flow"] = False  # "flow": all but the mixtures

    @model_validator(mode="after")
    def _can_start(self) -> FlowGMMRecipe:
        if self.categories_at_start and self.center_init == "data":
            raise ValueError(
                "categories_at_start starts categories without data: expected "
                "center_init = 'pattern' or 'orthogonal', got 'data'"
            )
        if self.categories_at_start and self.packnet:
            raise ValueError(
                "categories_at_start cannot go with packnet, where a category belongs "
                "to the task that brings it: leave one of them out"
            )
        return self


class FeatureGMMRecipe(ModelOptions):
    """``[model]`` of type ``feature_gmm``: the flow-free reference, without epochs.

    >>> FeatureGMMRecipe(components=4).score_kind
    'likelihood'
    """

    trained: ClassVar[bool] = False

    type: str = "feature_gmm"
    components: Positive = 1
    covariance_shrinkage: NonNegative = 1e-2
    max_positions: Positive = 20_000
    score_kind: ScoreName = "likelihood"
    smoothing_sigma: NonNegative = 4.0
    likelihood_map: Literal["log", "probability"] = "log"
    position_calibration: bool = True


_OPTIONS: dict[str, type[ModelOptions]] = {
    "flow_gmm": FlowGMMRecipe,
    "feature_gmm": FeatureGMMRecipe,
}


def model_options(name: object, folder: Path | None = None) -> type[ModelOptions]:
    """Return what ``[model]`` is validated by when it has a type.

    :param name: the type.
    :param folder: that of the recipe which states it, where its module may be.
    :raises RecipeError: when there is no such type of model.

    >>> model_options("flow_gmm").__name__
    'FlowGMMRecipe'
    """
    found = _OPTIONS.get(name) if isinstance(name, str) else None
    if found is None:
        raise RecipeError(unknown("type of model", str(name), _OPTIONS))
    return found
