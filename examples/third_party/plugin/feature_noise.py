"""Train on features with a little noise."""

from __future__ import annotations

import torch
from avalanche.core import SupervisedPlugin


class FeatureNoise(SupervisedPlugin):
    """Add Gaussian noise to the features of every training minibatch.

    :param scale: standard deviation of the noise.
    """

    def __init__(self, scale: float = 0.01) -> None:
        super().__init__()
        self.scale = scale

    def before_forward(self, strategy, *args, **kwargs):
        x = strategy.mbatch[0]
        strategy.mbatch[0] = x + self.scale * torch.randn_like(x)
