"""Where to compute."""

from __future__ import annotations

import torch

from avalanche_ad.errors import RecipeError

__all__ = ["pick_device"]


def pick_device(name: str) -> torch.device:
    """Return a torch device: ``auto`` takes a GPU when there is one.

    :raises RecipeError: when there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without memory fails here
    except (RuntimeError, AssertionError, NotImplementedError):
        raise RecipeError(
            f"--device {name!r} is not available here: use auto, cpu or a device that "
            "torch finds"
        ) from None
    return device
