"""How often the category of an image is inferred right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avalanche_ad.evaluation.anomaly_metric import AnomalyMetric

__all__ = ["CategoryAccuracy"]


class CategoryAccuracy(AnomalyMetric):
    """Share of the images whose category is inferred right.

    >>> CategoryAccuracy().compute(np.array([0, 0, 1]), np.array([0, 0, 0])) == 2 / 3
    True
    """

    name = "category_accuracy"
    level = "category"

    def compute(
        self, scores: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]
    ) -> float:
        """Return the share of indices that are equal."""
        return float(np.mean(scores == labels))
