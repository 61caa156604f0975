"""What a metric of an anomaly stream is: one number from scores and labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from avalanche_ad.datasets.regions import Region
from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = ["AnomalyMetric", "CurveMetric", "RegionMetric"]


class AnomalyMetric(ABC):
    """A number that says how well the anomalies of one category are found.

    A new one is a class in one file: of ``avalanche_ad.evaluation.measures``; of
    another package, with an entry point in the group ``avalanche_ad.metrics``; or of
    any module, named by its dotted path. Higher is better, since forgetting is the
    value when learned less the value now.

    ``name`` is what results and tables call it: lower-case letters, digits and
    underscores. ``level`` says what :meth:`compute` is given:

    ===========  ==============================  ================================
    level        scores                          labels
    ===========  ==============================  ================================
    image        (N,), higher is more anomalous  (N,), true where anomalous
    pixel        (N, H, W), likewise             (N, H, W), true on defects
    category     (N,), the category inferred     (N,), the true category
    ===========  ==============================  ================================

    Images whose masks are not known are no part of what a metric of pixels is given.
    Metrics of images and pixels are also computed from scores that were given the true
    category, as ``NAME_oracle``.

    >>> class Gap(AnomalyMetric):
    ...     name = "gap"
    ...     def compute(self, scores, labels):
    ...         return float(scores[labels].min() - scores[~labels].max())
    >>> import numpy as np
    >>> Gap().compute(np.array([0.25, 0.75]), np.array([False, True]))
    0.5
    """

    name: ClassVar[str] = ""
    level: ClassVar[Literal["image", "pixel", "category"]] = "image"
    needs_both: ClassVar[bool] = True
    """Whether it is undefined where normal or anomalous samples are missing: then
    :meth:`compute` is not called. Of no account at the level ``category``."""

    @abstractmethod
    def compute(
        self, scores: npt.NDArray[Any], labels: npt.NDArray[Any]
    ) -> float | None:
        """Return the value for one category, ``None`` where it is undefined.

        :param scores: floating point, or indices at the level ``category``.
        :param labels: of the same shape.
        """


class CurveMetric(AnomalyMetric):
    """A metric that is read off the curve that all metrics of a level share.

    Scores are sorted once a category and level, however many metrics are read off.

    >>> class FPR95(CurveMetric):
    ...     name = "fpr95"
    ...     def of_curve(self, curve):
    ...         return curve.fpr_at_tpr(0.95)
    >>> FPR95().compute([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.5
    """

    def compute(self, scores: npt.ArrayLike, labels: npt.ArrayLike) -> float | None:
        """Return the value of scores that no curve has been made of yet."""
        return self.of_curve(DetectionCurve(scores, labels))

    @abstractmethod
    def of_curve(self, curve: DetectionCurve) -> float | None:
        """Return the value, ``None`` where it is undefined."""


class RegionMetric(AnomalyMetric):
    """A metric of pixels that counts defects one by one, where they are known.

    Where the data set offers :class:`~avalanche_ad.datasets.regions.RegionData`,
    :meth:`of_regions` is called; with masks alone :meth:`compute`.

    >>> class Defects(RegionMetric):
    ...     name = "defects"
    ...     def of_regions(self, scores, regions):
    ...         return float(sum(len(own) for own in regions))
    ...     def compute(self, scores, labels):
    ...         return None
    >>> Defects().level
    'pixel'
    """

    level = "pixel"

    @abstractmethod
    def of_regions(
        self, scores: npt.NDArray[Any], regions: Sequence[Sequence[Region]]
    ) -> float | None:
        """Return the value, ``None`` where it is undefined.

        :param scores: (N, H, W), higher is more anomalous.
        :param regions: of every image, its defects (H, W); none of a normal image.
        """
