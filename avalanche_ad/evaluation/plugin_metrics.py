"""Anomaly detection by Avalanche's metrics of one value: AUROC and AUPRO.

A minibatch must be ``[x, y, is_anomaly, mask, ...]``: whether each image is anomalous
(N,), and its defects (N, H, W). The model must offer ``score(output, mask_size=(H,
W))``, with the fields ``image`` (N,) and ``maps`` (N, H, W); higher is more anomalous.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from avalanche.evaluation import GenericPluginMetric, Metric, PluginMetric
from avalanche.evaluation.metrics.forgetting_bwt import (
    GenericExperienceForgetting,
    GenericStreamForgetting,
    forgetting_to_bwt,
)
from torch import Tensor

from avalanche_ad.evaluation.detection_curve import DetectionCurve

__all__ = [
    "AUPRO",
    "AnomalyMeasure",
    "EpochAnomalyMetric",
    "ExperienceAnomalyBWT",
    "ExperienceAnomalyForgetting",
    "ExperienceAnomalyMetric",
    "ImageAUROC",
    "MinibatchAnomalyMetric",
    "PixelAUROC",
    "StreamAnomalyBWT",
    "StreamAnomalyForgetting",
    "StreamAnomalyMetric",
    "anomaly_metrics",
]


class AnomalyMeasure(Metric[float]):  # type: ignore[misc]
    """
    Base class of the standalone anomaly detection metrics.

    Scores and labels are gathered by class, since scores of one class say
    nothing about those of another. The result is the mean over the classes of
    which both normal and anomalous samples were seen, NaN if there is none.

    >>> issubclass(ImageAUROC, AnomalyMeasure)
    True
    """

    pixels = False
    """Whether it is of score maps and masks, and not of images."""

    def __init__(self) -> None:
        self._gathered: Dict[int, List[Tuple[np.ndarray, np.ndarray]]] = {}
        self._settled: List[float] = []

    def of_curve(self, curve: DetectionCurve) -> Optional[float]:
        """
        Read the value off the curve of one class.

        :param curve: of its scores and labels.
        :return: None where it is undefined.
        """
        raise NotImplementedError

    def update(
        self, scores: Tensor, labels: Tensor, classes: Optional[Tensor] = None
    ) -> None:
        """
        Take the scores of a minibatch.

        :param scores: of images (N,) or of pixels (N, H, W), higher is more
            anomalous.
        :param labels: of the same shape, true where anomalous.
        :param classes: class of each image (N,). Defaults to None, which means
            that all are of one class.
        """
        if scores.shape != labels.shape:
            raise ValueError(
                f"Expected scores and labels of one shape, got {tuple(scores.shape)} "
                f"and {tuple(labels.shape)}"
            )
        values = scores.detach().float().cpu().numpy()
        truth = labels.detach().bool().cpu().numpy()
        if classes is None:
            kinds = np.zeros(len(values), dtype=np.int64)
        else:
            kinds = classes.detach().cpu().numpy()
        for kind in np.unique(kinds).tolist():
            own = kinds == kind
            self._gathered.setdefault(kind, []).append((values[own], truth[own]))

    def settle(self) -> None:
        """
        Take the values of the classes that are complete, and drop their scores.
        """
        self._settled += self._values()
        self._gathered = {}

    def result(self) -> float:
        """
        Retrieve the mean over classes. Does not change the metric's state.

        :return: a float, NaN where no class has a value.
        """
        values = self._settled + self._values()
        return float(np.mean(values)) if values else float("nan")

    def reset(self) -> None:
        """
        Forget all scores.
        """
        self._gathered = {}
        self._settled = []

    def _values(self) -> List[float]:
        found = []
        for parts in self._gathered.values():
            scores, labels = (np.concatenate(every) for every in zip(*parts))
            value = self.of_curve(DetectionCurve(scores, labels))
            if value is not None:
                found.append(value)
        return found

    def __str__(self) -> str:
        return type(self).__name__


class ImageAUROC(AnomalyMeasure):
    """
    Area under the ROC curve of image scores, mean over classes.

    >>> from torch import tensor
    >>> metric = ImageAUROC()
    >>> metric.update(tensor([0.1, 0.4, 0.35, 0.8]), tensor([0, 0, 1, 1]))
    >>> metric.result()
    0.75
    """

    def of_curve(self, curve: DetectionCurve) -> Optional[float]:
        """
        Read it off the curve of one class.
        """
        return curve.auroc


class PixelAUROC(ImageAUROC):
    """
    Area under the ROC curve of all pixels of a class, mean over classes.

    >>> from torch import tensor
    >>> metric = PixelAUROC()
    >>> metric.update(tensor([[[0.1, 0.4], [0.35, 0.8]]]), tensor([[[0, 0], [1, 1]]]))
    >>> metric.result()
    0.75
    """

    pixels = True


class AUPRO(AnomalyMeasure):
    """
    Area under the per-region-overlap curve, mean over classes.

    The mean over all connected defects of the share that is found, integrated
    over the false-positive rate of pixels up to a limit and divided by it.
    Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021, section 4.2.

    :param fpr_limit: where the integral ends, in (0, 1].

    >>> from torch import tensor
    >>> metric = AUPRO()
    >>> metric.update(tensor([[[0.1, 0.4], [0.5, 0.8]]]), tensor([[[0, 0], [1, 1]]]))
    >>> metric.result()
    1.0
    """

    pixels = True

    def __init__(self, fpr_limit: float = 0.3) -> None:
        super().__init__()
        self.fpr_limit = fpr_limit

    def of_curve(self, curve: DetectionCurve) -> Optional[float]:
        """
        Read it off the curve of one class.
        """
        return curve.aupro(self.fpr_limit)


class MinibatchScores:
    """
    What the model says of a minibatch, asked once however many metrics want it.
    """

    def __init__(self) -> None:
        self._of: Optional[Tensor] = None
        self._scores: Any = None

    def update(self, strategy: Any, measure: AnomalyMeasure) -> None:
        """
        Pass scores and labels of the strategy's minibatch to a metric.

        A minibatch without labels of anomalies, as most training ones are, is
        passed over.
        """
        if len(strategy.mbatch) < 4:
            return
        x, y, is_anomaly, mask = strategy.mbatch[:4]
        # another tensor than the one that is held cannot lie where that lies
        if self._of is None or self._of.data_ptr() != x.data_ptr():
            found = strategy.model.score(
                strategy.mb_output, mask_size=tuple(mask.shape[-2:])
            )
            self._scores = found.image.detach().cpu(), found.maps.detach().cpu()
            self._of = x.detach()
        image, maps = self._scores
        if measure.pixels:
            measure.update(maps, mask, y)
        else:
            measure.update(image, is_anomaly, y)


class AnomalyPluginMetric(GenericPluginMetric[float, AnomalyMeasure]):  # type: ignore[misc]
    """
    Base class of the anomaly detection plugin metrics. A value that is undefined
    is not emitted.

    :param measure: what is measured.
    :param scores: shared with other metrics. Defaults to None, for its own.
    """

    suffix = ""
    """Ends its name."""
    when = "experience"
    """When it is emitted, and reset."""
    mode = "eval"

    def __init__(
        self, measure: AnomalyMeasure, scores: Optional[MinibatchScores] = None
    ) -> None:
        super().__init__(measure, reset_at=self.when, emit_at=self.when, mode=self.mode)
        self._scores = scores or MinibatchScores()

    def update(self, strategy: Any) -> None:
        """
        Take the scores of the strategy's minibatch.
        """
        self._scores.update(strategy, self._metric)

    def _package_result(self, strategy: Any) -> Any:
        found = super()._package_result(strategy)
        return [one for one in found if not np.isnan(one.value)]

    def __str__(self) -> str:
        return f"{self._metric}_{self.suffix}"


class MinibatchAnomalyMetric(AnomalyPluginMetric):
    """
    A measure of a single training minibatch, reported after each iteration.
    This metric only works at training time, with labels of anomalies.

    >>> print(MinibatchAnomalyMetric(AUPRO()))
    AUPRO_MB
    """

    suffix = "MB"
    when = "iteration"
    mode = "train"


class EpochAnomalyMetric(AnomalyPluginMetric):
    """
    A measure over a training epoch, reported after it.
    This metric only works at training time, with labels of anomalies.

    >>> print(EpochAnomalyMetric(AUPRO()))
    AUPRO_Epoch
    """

    suffix = "Epoch"
    when = "epoch"
    mode = "train"


class ExperienceAnomalyMetric(AnomalyPluginMetric):
    """
    A measure over an experience, mean over its classes.
    This metric only works at eval time.

    >>> print(ExperienceAnomalyMetric(AUPRO()))
    AUPRO_Exp
    """

    suffix = "Exp"


class StreamAnomalyMetric(AnomalyPluginMetric):
    """
    A measure over a stream, mean over its classes, whose scores are not pooled.
    This metric only works at eval time.

    >>> print(StreamAnomalyMetric(AUPRO()))
    AUPRO_Stream
    """

    suffix = "Stream"
    when = "stream"

    def after_eval_exp(self, strategy: Any) -> Any:
        """
        Drop the scores of the experience, so that memory holds one at a time.
        """
        self._metric.settle()
        return super().after_eval_exp(strategy)


class _Forgetting:
    """
    What the metrics of forgetting and transfer of a measure share.
    """

    def __init__(
        self, measure: AnomalyMeasure, scores: Optional[MinibatchScores] = None
    ) -> None:
        super().__init__(measure)  # type: ignore[call-arg]
        self._scores = scores or MinibatchScores()

    def result_key(self, k: int) -> Optional[float]:
        """
        The value of the experience k when it was learned less its value now,
        None if it was not learned earlier or has no value.
        """
        found: Optional[float] = self.forgetting.result_key(k=k)  # type: ignore[attr-defined]
        return None if found is None or np.isnan(found) else found

    def metric_update(self, strategy: Any) -> None:
        """
        Take the scores of the strategy's minibatch.
        """
        self._scores.update(strategy, self._current_metric)  # type: ignore[attr-defined]

    def metric_result(self, strategy: Any) -> float:
        """
        The value of the experience.
        """
        return float(self._current_metric.result())  # type: ignore[attr-defined]


class ExperienceAnomalyForgetting(
    _Forgetting,
    GenericExperienceForgetting[AnomalyMeasure, Dict[int, float], Optional[float]],  # type: ignore[misc]
):
    """
    The value of an experience when it was learned less its value now.
    This metric only works at eval time.

    :param measure: what is measured.
    :param scores: shared with other metrics. Defaults to None, for its own.

    >>> print(ExperienceAnomalyForgetting(AUPRO()))
    AUPRO_ExperienceForgetting
    """

    def result(self) -> Dict[int, float]:
        """
        Forgetting of all experiences learned earlier.
        """
        found = {key: self.result_key(key) for key in self.forgetting.result()}
        return {key: value for key, value in found.items() if value is not None}

    def __str__(self) -> str:
        return f"{self._current_metric}_ExperienceForgetting"


class ExperienceAnomalyBWT(ExperienceAnomalyForgetting):
    """
    Backward transfer to an experience: minus its forgetting.

    >>> print(ExperienceAnomalyBWT(AUPRO()))
    AUPRO_ExperienceBWT
    """

    def result_key(self, k: int) -> Optional[float]:
        """
        Transfer to the experience k, see :class:`ExperienceAnomalyForgetting`.
        """
        found: Optional[float] = forgetting_to_bwt(super().result_key(k))
        return found

    def __str__(self) -> str:
        return f"{self._current_metric}_ExperienceBWT"


class StreamAnomalyForgetting(
    _Forgetting,
    GenericStreamForgetting[AnomalyMeasure],  # type: ignore[misc]
):
    """
    The mean forgetting of all experiences learned earlier.
    This metric only works at eval time.

    :param measure: what is measured.
    :param scores: shared with other metrics. Defaults to None, for its own.

    >>> print(StreamAnomalyForgetting(AUPRO()))
    AUPRO_StreamForgetting
    """

    def __str__(self) -> str:
        return f"{self._current_metric}_StreamForgetting"


class StreamAnomalyBWT(StreamAnomalyForgetting):
    """
    Backward transfer: minus the mean forgetting.

    >>> print(StreamAnomalyBWT(AUPRO()))
    AUPRO_StreamBWT
    """

    def exp_result(self, k: int) -> Optional[float]:
        """
        Transfer to the experience k, see :class:`StreamAnomalyForgetting`.
        """
        found: Optional[float] = forgetting_to_bwt(super().exp_result(k))
        return found

    def __str__(self) -> str:
        return f"{self._current_metric}_StreamBWT"


def anomaly_metrics(
    *,
    minibatch: bool = False,
    epoch: bool = False,
    experience: bool = False,
    stream: bool = False,
    forgetting: bool = False,
    bwt: bool = False,
    measures: Sequence[Callable[[], AnomalyMeasure]] = (ImageAUROC, PixelAUROC, AUPRO),
) -> List[PluginMetric[Any]]:
    """
    Helper method that can be used to obtain the desired set of
    plugin metrics. However many there are, the model is asked once a minibatch.

    :param minibatch: If True, will return metrics of each training minibatch.
        These, as those of epochs, need labels of anomalies in training.
    :param epoch: If True, will return metrics of each training epoch.
    :param experience: If True, will return metrics of each evaluation experience.
    :param stream: If True, will return metrics of the whole evaluation stream:
        means over its classes.
    :param forgetting: If True, will return the forgetting of each experience and
        its mean.
    :param bwt: If True, will return the backward transfer to each experience and
        its mean.
    :param measures: what is measured. Defaults to AUROC of images and of pixels
        and AUPRO.

    :return: A list of plugin metrics.

    >>> [str(metric) for metric in anomaly_metrics(stream=True)]
    ['ImageAUROC_Stream', 'PixelAUROC_Stream', 'AUPRO_Stream']
    """
    wanted: List[Tuple[bool, Any]] = [
        (minibatch, MinibatchAnomalyMetric),
        (epoch, EpochAnomalyMetric),
        (experience, ExperienceAnomalyMetric),
        (stream, StreamAnomalyMetric),
        (forgetting, ExperienceAnomalyForgetting),
        (forgetting, StreamAnomalyForgetting),
        (bwt, ExperienceAnomalyBWT),
        (bwt, StreamAnomalyBWT),
    ]
    scores = MinibatchScores()
    return [
        kind(measure(), scores) for on, kind in wanted if on for measure in measures
    ]
