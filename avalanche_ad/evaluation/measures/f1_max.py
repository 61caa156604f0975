"""Highest F1 over all thresholds, of images and of pixels."""

from __future__ import annotations

from avalanche_ad.evaluation.anomaly_metric import CurveMetric
from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = ["ImageF1Max", "PixelF1Max"]


class ImageF1Max(CurveMetric):
    """Highest F1 of image scores over all thresholds.

    >>> ImageF1Max().compute([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.8
    """

    name = "image_f1max"

    def of_curve(self, curve: DetectionCurve) -> float | None:
        """Return :attr:`DetectionCurve.f1max`."""
        return curve.f1max


class PixelF1Max(ImageF1Max):
    """Highest F1 of all pixels over all thresholds.

    >>> PixelF1Max().compute([[[0.1, 0.4], [0.35, 0.8]]], [[[0, 0], [1, 1]]])
    0.8
    """

    name = "pixel_f1max"
    level = "pixel"
