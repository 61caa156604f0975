"""Average precision, of images and of pixels."""

from __future__ import annotations

from avalanche_ad.evaluation.anomaly_metric import CurveMetric
from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = ["ImageAP", "PixelAP"]


class ImageAP(CurveMetric):
    """Average precision of image scores, without interpolation.

    >>> ImageAP().compute([0.1, 0.4, 0.8], [0, 1, 1])
    1.0
    """

    name = "image_ap"

    def of_curve(self, curve: DetectionCurve) -> float | None:
        """Return :attr:`DetectionCurve.average_precision`."""
        return curve.average_precision


class PixelAP(ImageAP):
    """Average precision of all pixels.

    >>> PixelAP().compute([[[0.1, 0.4, 0.8]]], [[[0, 1, 1]]])
    1.0
    """

    name = "pixel_ap"
    level = "pixel"
