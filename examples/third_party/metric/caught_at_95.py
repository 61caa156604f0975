"""How many defects are caught when one good part in twenty may be thrown away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avalanche_ad.evaluation import AnomalyMetric


class CaughtAt95(AnomalyMetric):
    """Share of anomalous images above what 95 % of the normal images score.

    >>> scores = np.array([0.1, 0.2, 0.15, 0.9])
    >>> CaughtAt95().compute(scores, np.array([False, False, True, True]))
    0.5
    """

    name = "caught_at_95"
    level = "image"

    def compute(self, scores: npt.NDArray, labels: npt.NDArray) -> float:
        """Return the share, in [0, 1]."""
        limit = np.quantile(scores[~labels], 0.95)
        return float(np.mean(scores[labels] > limit))
