"""Options as a recipe states them: strict, and the sorts of value they have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AboveZero",
    "AtLeastTwo",
    "Count",
    "Difference",
    "ModelOptions",
    "Momentum",
    "NonNegative",
    "Options",
    "Positive",
    "Seed",
    "Share",
]

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
AboveZero = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]


class Options(BaseModel):
    """A section of a recipe: unknown keys and values of a wrong type are refused.

    >>> class Sizes(Options):
    ...     width: Positive = 3
    >>> Sizes(width=4)
    Sizes(width=4)
    >>> Sizes(width=0)
    Traceback (most recent call last):
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Sizes
    ...
    """

    # JSON, in which results are kept, has no infinity
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelOptions(Options):
    """``[model]``: the type, and the arguments of its class beside layout and seed.

    Those here are every model's, see :class:`~avalanche_ad.models.AnomalyModel`.

    A model's own options are a subclass, which it names as its ``Options``. Unknown
    keys and wrong types are refused.

    >>> class MyOptions(ModelOptions):
    ...     neighbours: Positive = 9
    >>> MyOptions(type="my_model", neighbours=3).arguments  # doctest: +ELLIPSIS
    {'score_kind': None, 'smoothing_sigma': 4.0, 'position_calibration': True, ...
    """

    type: str
    score_kind: str | None = None  # the model's first map
    smoothing_sigma: NonNegative = 4.0
    position_calibration: bool = True

    @property
    def learns_defects(self) -> bool:
        """Whether the model is trained on painted defects as well, here not."""
        return False

    @property
    def arguments(self) -> dict[str, object]:
        """The keyword arguments for the model's class."""
        return self.model_dump(exclude={"type"})
