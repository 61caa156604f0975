"""Area under the ROC curve, of images and of pixels."""

from __future__ import annotations

from avalanche_ad.evaluation.anomaly_metric import CurveMetric
from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = ["ImageAUROC", "PixelAUROC"]


class ImageAUROC(CurveMetric):
    """Area under the ROC curve of image scores.

    >>> ImageAUROC().compute([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """

    name = "image_auroc"

    def of_curve(self, curve: DetectionCurve) -> float | None:
        """Return :attr:`DetectionCurve.auroc`."""
        return curve.auroc


class PixelAUROC(ImageAUROC):
    """Area under the ROC curve of all pixels.

    >>> PixelAUROC().compute([[[0.1, 0.4], [0.35, 0.8]]], [[[0, 0], [1, 1]]])
    0.75
    """

    name = "pixel_auroc"
    level = "pixel"
