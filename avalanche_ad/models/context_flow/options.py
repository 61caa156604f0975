"""What a recipe may say of a context flow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from avalanche_ad.models.placed_density import PlacedDensityOptions
from avalanche_ad.registry.options import (
    AboveZero,
    Count,
    NonNegative,
    Positive,
    Share,
)

__all__ = ["ContextFlowOptions"]


class ContextFlowOptions(PlacedDensityOptions):
    """``[model]`` of type ``context_flow``.

    >>> ContextFlowOptions(rank=32).couplings
    6
    """

    type: str = "context_flow"
    couplings: Positive = 6
    hidden: Positive = 128
    kernel: Annotated[int, Field(ge=1, le=9)] = 1
    clamp: AboveZero = 1.5
    networks: Annotated[int, Field(ge=1, le=6)] = 2
    condition_channels: Annotated[int, Field(ge=0, multiple_of=4)] = 16
    whitening: Share = 0.5
    rank: Annotated[int, Field(ge=0)] = 0
    auxiliary: Annotated[int, Field(ge=0)] = 0
    crop: Count = 16
    likelihood_weight: NonNegative = 0.0
    tail_weight: Share = 0.0
    tail_share: Annotated[float, Field(gt=0, le=1)] = 0.05
    contrast_weight: NonNegative = 1.0
    noise: AboveZero = 0.5
    head: Annotated[int, Field(ge=0)] = 256
    critic: Annotated[int, Field(ge=0)] = 256
    doubt: NonNegative = 1.0
    score_kind: str = "product_with_context"

    @property
    def learns_defects(self) -> bool:
        """Whether there is a critic to train, see :class:`ModelOptions`."""
        return bool(self.critic and self.contrast_weight)

    @model_validator(mode="after")
    def _can_train(self) -> ContextFlowOptions:
        if self.kernel % 2 == 0:
            raise ValueError(
                f"expected kernel as an odd number of positions, got {self.kernel}"
            )
        if self.auxiliary and not self.rank:
            raise ValueError(
                "auxiliary couplings come after a base that categories share, and "
                "there is none: set rank above 0, or give each flow more couplings"
            )
        if not self.likelihood_weight and not self.contrast_weight:
            raise ValueError(
                "nothing trains the flow: set likelihood_weight or contrast_weight "
                "above 0"
            )
        return self
