"""Where to compute."""

from __future__ import annotations

import torch

from avalanche_ad.errors import RecipeError

__all__ = ["is_available", "pick_device"]


def pick_device(name: str, threads: int | None = None) -> torch.device:
    """Return a torch device: ``auto`` takes a GPU when there is one.

    :param name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …
    :param threads: CPU threads torch uses from now on, its own choice by default. A
        small flow's steps are too short to share, and the number of threads is part of
        what makes a run repeat bit by bit.
    :raises RecipeError: when there is no such device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not is_available(name):
        raise RecipeError(
            f"--device {name!r} is not available here: use auto, cpu or a device that "
            "torch finds"
        )
    return torch.device(name)


def is_available(name: str) -> bool:
    """Return whether torch can compute on a device.

    :param name: as torch spells it, such as ``cuda:1``.
    """
    try:
        # a device without memory fails here
        torch.zeros(1, device=torch.device(name)).item()
    except (RuntimeError, AssertionError, NotImplementedError):
        return False
    return True
