"""What a recipe may say of PatchCore."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from avalanche_ad.models.patchcore.neighbours import Search
from avalanche_ad.registry.options import ModelOptions, Positive

__all__ = ["PatchCoreOptions"]


class PatchCoreOptions(ModelOptions):
    """``[model]`` of type ``patchcore``.

    >>> PatchCoreOptions(budget=20_000).share
    0.1
    """

    type: str = "patchcore"
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    vectors: Positive | None = None
    budget: Positive | None = None
    neighbours: Positive = 1
    neighbourhood: Literal[1, 3, 5, 7] = 3
    max_positions: Positive = 50_000
    inference_stride: Positive = 4
    search: Search = "torch"

    @model_validator(mode="after")
    def _one_size(self) -> PatchCoreOptions:
        if self.vectors is not None and self.budget is not None:
            raise ValueError(
                "vectors (for each category) and budget (for all) contradict each "
                "other: give one"
            )
        return self
