"""Area under the per-region-overlap curve."""

from __future__ import annotations

from avalanche_ad.evaluation.anomaly_metric import CurveMetric
from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = ["AUPRO"]


class AUPRO(CurveMetric):
    """Per-region overlap, see :func:`avalanche_ad.evaluation.detection.aupro`.

    :param fpr_limit: where the integral ends, in (0, 1].

    >>> AUPRO().compute([[[0.1, 0.4], [0.5, 0.8]]], [[[0, 0], [1, 1]]])
    1.0
    """

    name = "aupro"
    level = "pixel"

    def __init__(self, fpr_limit: float = 0.3) -> None:
        self.fpr_limit = fpr_limit

    def of_curve(self, curve: DetectionCurve) -> float | None:
        """Return :meth:`DetectionCurve.aupro`."""
        return curve.aupro(self.fpr_limit)
