"""Plain values as a tensor, so that a state holds nothing but tensors."""

from __future__ import annotations

import json

import torch
from torch import Tensor

__all__ = ["settings_of", "settings_tensor"]


def settings_tensor(values: object) -> Tensor:
    """Return values as JSON, a byte a number.

    Whoever copies or saves a state takes it for one more tensor.

    :param values: of JSON's types.
    :return: 8-bit integers (bytes,).
    """
    return torch.tensor(list(json.dumps(values).encode()), dtype=torch.uint8)


def settings_of(tensor: Tensor) -> object:
    """Return the values of :func:`settings_tensor`.

    :raises ValueError: when the tensor holds none.

    >>> settings_of(settings_tensor({"entropy": "known"}))
    {'entropy': 'known'}
    """
    return json.loads(bytes(tensor.to(torch.uint8).cpu().tolist()))
