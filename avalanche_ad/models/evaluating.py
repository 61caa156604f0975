"""For a while: a model in evaluation mode, and torch's generator from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluating", "seeded"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode for a while, without gradient.

    >>> module = nn.Dropout()
    >>> with evaluating(module):
    ...     module.training
    False
    """
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's generator of the CPU start from a seed for a while, then go on.

    Those of accelerators stay as they are, which ``torch.manual_seed`` would seed too.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
