"""What a recipe may say of a flow-GMM."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from avalanche_ad.models.density_model import DensityOptions
from avalanche_ad.registry.options import Positive

__all__ = ["FlowGMMOptions", "PackNetFlowGMMOptions"]


class FlowGMMOptions(DensityOptions):
    """``[model]`` of type ``flow_gmm``: HGAD by default, with position calibration.

    Benchmarks and strategies share the section, so some of it may not be read:
    ``likelihood_map`` is of scores without position calibration, ``pattern_period`` of
    centres that start in the pattern.

    >>> FlowGMMOptions(couplings=8).centers_per_category
    10
    """

    type: str = "flow_gmm"
    couplings: Positive = 12
    hidden_ratio: Annotated[float, Field(gt=0)] = 2.0
    clamp: Annotated[float, Field(gt=0)] = 1.9
    condition_channels: Annotated[int, Field(ge=0, multiple_of=4)] = 256
    flow_start: Literal["random", "rotation"] = "random"
    kernel: Annotated[int, Field(ge=1, le=9)] = 1
    centers_per_category: Positive = 10
    center_init: Literal["pattern", "orthogonal", "data"] = "pattern"
    pattern_period: Positive = 16
    position_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    score_kind: str = "product"
    categories_at_start: bool = False
    packnet: bool | Literal["flow"] = False  # "flow": all but the mixtures

    @model_validator(mode="after")
    def _can_start(self) -> FlowGMMOptions:
        if self.kernel % 2 == 0:
            raise ValueError(
                f"expected kernel as an odd number of positions, got {self.kernel}"
            )
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


class PackNetFlowGMMOptions(FlowGMMOptions):
    """``[model]`` of type ``packnet_flow_gmm``, as ``flow_gmm`` with ``packnet``.

    >>> PackNetFlowGMMOptions().packnet
    True
    """

    type: str = "packnet_flow_gmm"
    packnet: bool | Literal["flow"] = True

    @model_validator(mode="after")
    def _is_packnet(self) -> PackNetFlowGMMOptions:
        if not self.packnet:
            raise ValueError("packnet = false is type = 'flow_gmm'")
        return self
