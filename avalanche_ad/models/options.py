"""What a recipe's ``[model]`` may say, checked before anything is built."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ModelOptions", "NonNegative", "Positive"]

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class ModelOptions(BaseModel):
    """``[model]``: the type, and the arguments of its class beside layout and seed.

    Those here are every model's, see :class:`~avalanche_ad.models.AnomalyModel`.

    A model's own options are a subclass, which it names as its ``Options``. Unknown
    keys and wrong types are refused.

    >>> class MyOptions(ModelOptions):
    ...     neighbours: Positive = 9
    >>> MyOptions(type="my_model", neighbours=3).arguments  # doctest: +ELLIPSIS
    {'score_kind': None, 'smoothing_sigma': 4.0, 'position_calibration': True, ...
    """

    # JSON, in which results are kept, has no infinity
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: str
    score_kind: str | None = None  # the model's first map
    smoothing_sigma: NonNegative = 4.0
    position_calibration: bool = True

    @property
    def arguments(self) -> dict[str, object]:
        """The keyword arguments for the model's class."""
        return self.model_dump(exclude={"type"})
