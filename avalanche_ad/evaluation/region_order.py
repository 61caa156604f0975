"""The regions of test images, in the order in which these are evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets.regions import Region
from avalanche_ad.errors import AvalancheADError

__all__ = ["next_regions", "regions_of"]


def regions_of(experience: Any) -> Iterator[list[Region]] | None:
    """Yield the regions of an experience's images in order, if they are known."""
    known = getattr(getattr(experience, "benchmark", None), "regions", None)
    return (known[path] for path in experience.dataset.path) if known else None


def next_regions(
    regions: Iterator[list[Region]], masks: npt.NDArray[np.bool_]
) -> npt.NDArray[Any]:
    """Return the regions of the next images, one list each, held against their masks.

    :raises AvalancheADError: when the images do not come in the experience's order.
    """
    found = np.empty(len(masks), dtype=object)
    for index, own in enumerate(islice(regions, len(masks))):
        found[index] = own
    for own, mask in zip(found, masks, strict=True):
        drawn = np.zeros_like(mask)
        for region in own or ():
            drawn |= region.mask
        if own is None or not np.array_equal(drawn, mask):
            raise AvalancheADError(
                "regions and masks of test images differ: metrics of regions need "
                "the images evaluated in the experience's order, without shuffling"
            )
    return found
