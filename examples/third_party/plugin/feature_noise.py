"""Train on features with a little noise."""

from __future__ import annotations

from typing import Annotated

import torch
from avalanche.core import SupervisedPlugin
from pydantic import Field


class FeatureNoise(SupervisedPlugin):
    """Add Gaussian noise to the features of every training minibatch.

    :param scale: standard deviation of the noise.
    """

    # what a value may be is said by its type; a recipe's is held against it
    def __init__(self, scale: Annotated[float, Field(ge=0, le=1)] = 0.01) -> None:
        super().__init__()
        self.scale = scale

    def before_forward(self, strategy, *args, **kwargs):
        x = strategy.mbatch[0]
        strategy.mbatch[0] = x + self.scale * torch.randn_like(x)
