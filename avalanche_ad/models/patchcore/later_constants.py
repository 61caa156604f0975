"""Constants of position calibration for the bank that a category will have later."""

from __future__ import annotations

import torch
from torch import Tensor

from avalanche_ad.models.category_table import CategoryTable

__all__ = ["LaterConstants"]

_CUTS = 9  # each a root of two less: down to a sixteenth


class LaterConstants(CategoryTable):
    """What a category's constants are when it has fewer vectors, and no image any more.

    Fewer vectors lie further from everything, at some positions more than at others.

    :param shape: (H, W) of the map.

    Shapes: ``sizes`` (C, S), numbers of vectors; ``rows`` (C, S, 2, H, W), constants of
    :class:`~avalanche_ad.models.position_calibration.PositionCalibration`.

    >>> later = LaterConstants((4, 4))
    >>> later.sizes_below(100)
    [100, 71, 50, 35, 25, 18, 12, 9, 6]
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__(known=False)
        self.add_table("sizes", _CUTS, blank=torch.nan)
        self.add_table("rows", _CUTS, 2, *shape, blank=torch.nan)

    @staticmethod
    def sizes_below(count: int) -> list[int]:
        """Return the sizes that constants are taken for, falling.

        :param count: vectors that the category has now.
        """
        return [max(1, round(count / 2 ** (cut / 2))) for cut in range(_CUTS)]

    def nearest(self, category: int, count: int) -> Tensor:
        """Return a category's constants for the size nearest to a number of vectors.

        :return: (2, H, W).
        """
        ratio = (self.get_buffer("sizes")[category] / count).log().abs()
        return self.get_buffer("rows")[category, ratio.argmin()]
