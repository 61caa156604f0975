"""Area under the curve of saturated per-region overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from avalanche_ad.datasets.regions import Region
from avalanche_ad.evaluation.anomaly_metric import RegionMetric
from avalanche_ad.evaluation.saturated_overlap import connected_regions, mean_au_spro

__all__ = ["SPRO"]


class SPRO(RegionMetric):
    """sPRO, see :func:`avalanche_ad.evaluation.saturated_overlap.mean_au_spro`.

    MVTec LOCO AD says how much of each defect must be found. Of a data set that does
    not, every connected region of a mask must be found whole, which makes it AUPRO.

    :param fpr_limit: where the integral ends, in (0, 1].

    >>> SPRO().compute(np.array([[[0.1, 0.4], [0.5, 0.8]]]), [[[0, 0], [1, 1]]])
    1.0
    """

    name = "spro"

    def __init__(self, fpr_limit: float = 0.05) -> None:
        self.fpr_limit = fpr_limit

    def of_regions(
        self, scores: npt.NDArray[Any], regions: Sequence[Sequence[Region]]
    ) -> float | None:
        """Return the value where the regions are known."""
        return mean_au_spro(scores, regions, self.fpr_limit)

    def compute(self, scores: npt.NDArray[Any], labels: npt.ArrayLike) -> float | None:
        """Return the value of the masks' connected regions."""
        return self.of_regions(scores, connected_regions(np.asarray(labels)))
