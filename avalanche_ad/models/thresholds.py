"""Thresholds that normal images exceed at a known rate, from scores of held-out ones.

With n scores of normals that the model was not fitted to, and a new normal exchangeable
with them, the k-th smallest is exceeded by the new one with probability
(n + 1 − k) / (n + 1), over draws of all n + 1; given the n, the rate itself follows
Beta(n + 1 − k, k) where scores have no ties, and lies below where they have.

Source: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005; the
distribution of the rate: Vovk, "Conditional Validity of Inductive Conformal
Predictors", ACML 2012.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from avalanche_ad.errors import TrainingError

__all__ = ["CONFIDENCE", "FalseAlarms", "HeldOutScores", "images_needed", "order_of"]

CONFIDENCE = 0.95
_ROUNDING = 1e-9  # of n · q, so that 0.95 of 20 is 19


def order_of(images: int, level: float) -> int:
    """Return which of n ordered scores is the threshold of a level: k = ⌈(n + 1) q⌉.

    :param images: n, at least 1.
    :param level: q in (0, 1), the share of new normals that shall lie below.
    :return: k, from 1 to n: n where there are too few for the level.
    """
    return min(images, max(1, math.ceil((images + 1) * level - _ROUNDING)))


def images_needed(level: float) -> int:
    """Return the least n whose largest score keeps a level: n ≥ q / (1 − q).

    :param level: q in (0, 1).
    """
    return math.ceil(level / (1 - level) - _ROUNDING)


@dataclass(frozen=True)
class FalseAlarms:
    """How many new normals a threshold calls anomalous, and how sure that is.

    :param expected: share of new normals.
    :param low: lower end of the interval that holds the share with 95 % confidence.
    :param high: its upper end.
    :param images: how many held-out normals this is of.

    >>> round(HeldOutScores(range(1, 40)).false_alarms(37.0).high, 3)
    0.209
    """

    expected: float
    low: float
    high: float
    images: int


class HeldOutScores:
    """Scores of a category's normals, each by a model that was not fitted to it.

    :param scores: image scores (N,), N at least 1, in any order.
    :raises TrainingError: when there is none, or one is not finite.

    >>> held_out = HeldOutScores(range(1, 40))
    >>> held_out.share_above(38.0)
    0.075
    >>> held_out.false_alarms(held_out.threshold(0.9)).expected
    0.1
    """

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores = sorted(float(score) for score in scores)
        if not self.scores or not all(map(math.isfinite, self.scores)):
            raise TrainingError(
                "expected at least one finite score of held-out normals, got "
                f"{len(self.scores)} of which some are not finite"
                if self.scores
                else "expected at least one score of held-out normals, got none"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def threshold(self, level: float) -> float:
        """Return the score from which on an image is called anomalous.

        The least number above the k-th smallest score, k of :func:`order_of`, so that a
        score that equals it is normal and ties break no promise.

        :param level: q in (0, 1).
        :raises ValueError: for another level.
        """
        if not 0 < level < 1:
            raise ValueError(f"expected a level between 0 and 1, got {level}")
        return float(np.nextafter(self.scores[order_of(len(self), level) - 1], np.inf))

    def share_above(self, score: float) -> float:
        """Return the expected share of new normals that score as high or higher.

        (1 + #{held-out scores ≥ s}) / (n + 1), in (0, 1]: a conformal p-value. It is at
        most 1 − q where s reaches the threshold of a level q that n is enough for.

        :param score: s.
        """
        return (1 + self._from(score)) / (len(self) + 1)

    def false_alarms(self, threshold: float, level: float | None = None) -> FalseAlarms:
        """Return how many new normals reach a threshold.

        With m of n held-out scores at or above it, (m + 1) / (n + 1) are expected. A
        threshold that is an order statistic of these scores has a rate that follows
        Beta(m + 1, n − m); one that comes from elsewhere has Clopper and Pearson's
        interval, wider below.

        :param threshold: the score from which on an image is called anomalous.
        :param level: the level whose threshold it is, if it is one's.
        """
        count = len(self)
        reached = self._from(threshold)
        if level is not None:
            reached = count - order_of(count, level)
        low_reached = reached + (level is not None)
        tail = (1 - CONFIDENCE) / 2
        below = count - reached
        return FalseAlarms(
            (reached + 1) / (count + 1),
            float(betaincinv(low_reached, count + 1 - low_reached, tail))
            if low_reached
            else 0.0,
            float(betaincinv(reached + 1, below, 1 - tail)) if below else 1.0,
            count,
        )

    def _from(self, score: float) -> int:
        """Return how many of the scores are as high or higher."""
        return len(self.scores) - bisect_left(self.scores, score)
