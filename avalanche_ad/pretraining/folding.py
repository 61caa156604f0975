"""Batch normalisation becomes part of the filters before it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["fold"]


def fold(target: nn.Conv2d, conv: Any, norm: Any) -> None:
    """Give a filter the weights of another and of the normalisation behind it.

    :param target: it takes weight and bias.
    :param conv: a convolution of the same shape; it stays as it is.
    :param norm: its batch normalisation, in evaluation.
    """
    target.load_state_dict(fuse_conv_bn_eval(conv, norm).state_dict())
