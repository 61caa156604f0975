"""What a recipe's ``[model]`` may say, checked before anything is built."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ModelOptions", "NonNegative", "Positive"]

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class ModelOptions(BaseModel):
    """``[model]``: the type, and the arguments of its class beside layout and seed.

    A model's own options are a subclass, which it names as its ``Options``. Unknown
    keys and wrong types are refused.

    >>> class MyOptions(ModelOptions):
    ...     neighbours: Positive = 9
    >>> MyOptions(type="my_model", neighbours=3).arguments
    {'neighbours': 3}
    """

    # JSON, in which results are kept, has no infinity
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: str

    @property
    def arguments(self) -> dict[str, object]:
        """The keyword arguments for the model's class."""
        return self.model_dump(exclude={"type"})
