"""Anomaly-detection metrics for Avalanche's ``EvaluationPlugin``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name, stream_type

from avalanche_ad.datasets.regions import Region
from avalanche_ad.errors import AvalancheADError, counted
from avalanche_ad.evaluation.anomaly_metric import AnomalyMetric, RegionMetric
from avalanche_ad.evaluation.continual import difference, mean_defined
from avalanche_ad.evaluation.csv_logger import learning_experience
from avalanche_ad.evaluation.detection import UndefinedMetricWarning
from avalanche_ad.evaluation.detection_curve import missing_class
from avalanche_ad.evaluation.measures.aupro import AUPRO
from avalanche_ad.evaluation.measuring import computed, known_masks, level_values
from avalanche_ad.evaluation.region_order import next_regions, regions_of
from avalanche_ad.evaluation.registry import (
    DEFAULT_METRICS,
    ORACLE,
    find_metrics,
    metric_names,
)

__all__ = ["AnomalyMetrics", "anomaly_metrics"]

Arrays = dict[str, npt.NDArray[Any]]
Values = dict[str, float | None]
_PARTS: dict[Literal["image", "pixel"], tuple[str, str]] = {
    "image": ("image", "is_anomaly"),
    "pixel": ("maps", "mask"),
}
"""What is gathered of scores and of labels, by level."""


def anomaly_metrics(
    category_names: Sequence[str],
    *,
    metrics: Sequence[str | AnomalyMetric] = DEFAULT_METRICS,
    oracle: bool = True,
    per_category: bool = True,
    fpr_limit: float = 0.3,
) -> list[PluginMetric[Any]]:
    """Create the metrics of an anomaly stream, for ``EvaluationPlugin``.

    The arguments are those of :class:`AnomalyMetrics`.

    :return: a list, as Avalanche's own helpers return.
    """
    return [
        AnomalyMetrics(
            category_names,
            metrics=metrics,
            oracle=oracle,
            per_category=per_category,
            fpr_limit=fpr_limit,
        )
    ]


class AnomalyMetrics(PluginMetric[dict[str, float]]):  # type: ignore[misc]
    """Measure detection, localization, category inference and their forgetting.

    Every minibatch of an evaluated experience is scored once (once more with the true
    category for the ``_oracle`` metrics), whatever the number of metrics. After the
    experience its categories are measured one by one and the scores are dropped, so
    that memory never holds more than one experience. Emitted are Python floats:

    - ``NAME/eval_phase/test_stream[/TaskTTT]/ExpEEE/CATEGORY``: one category;
    - ``NAME/eval_phase/test_stream[/TaskTTT]/ExpEEE``: mean over its categories;
    - ``NAME/eval_phase/test_stream``: mean over all categories of the evaluation, not
      over pooled samples;
    - ``NAME_forgetting/…`` and ``NAME_bwt/…`` of an experience learned earlier: its
      value when learned minus its value now, and the negative; for the stream, the
      mean over those experiences.

    The strategy's minibatch must be ``[x, category, is_anomaly, mask(, task)]``; a
    shorter one, such as a training experience's, is not measured. An image whose mask
    is 255 throughout, unknown, counts for images and not for pixels; of a category
    with anomalous images of which no mask is known, what is of pixels is undefined.
    The model must offer
    ``score(output, mask_size=(H, W), category=None)`` with the fields ``image`` (N,),
    ``maps`` (N, H, W) and ``category`` (N,). A measure that is undefined because the
    category has normal or anomalous samples only is not emitted, is ``None`` in
    :attr:`history` and gives one :class:`UndefinedMetricWarning` per category.

    :param category_names: name of every category index.
    :param metrics: names that ``avalanche-ad list metrics`` shows, dotted paths of
        classes, or metrics with options of their own.
    :param oracle: also score with the true category given.
    :param per_category: also emit a value per category.
    :param fpr_limit: where the integral of ``"aupro"`` ends.
    :raises AvalancheADError: for a metric that does not exist.

    >>> AnomalyMetrics(["bolt"], metrics=["aupro"]).names
    ('aupro', 'aupro_oracle')
    """

    history: list[dict[str, Any]]
    """One plain dictionary per evaluated category: ``step`` (training iterations),
    ``training_experience`` (the latest, ``None`` before any), ``stream``,
    ``experience``, ``category``, every metric, and ``image_threshold`` and
    ``pixel_threshold``, the scores at which F1 is highest; ``None`` where undefined."""

    def __init__(
        self,
        category_names: Sequence[str],
        *,
        metrics: Sequence[str | AnomalyMetric] = DEFAULT_METRICS,
        oracle: bool = True,
        per_category: bool = True,
        fpr_limit: float = 0.3,
    ) -> None:
        super().__init__()
        self.category_names = category_names
        self.metrics = find_metrics(
            AUPRO(fpr_limit) if one == AUPRO.name else one for one in metrics
        )
        self.oracle = oracle
        self.per_category = per_category
        self.reset()

    def reset(self) -> None:
        """Forget everything, the values when learned and the history included."""
        self.history = []
        self._training_experience: int | None = None
        self._learned: dict[tuple[str, int], Values] = {}
        self._warned: set[str] = set()
        self._start_evaluation()
        self._gathered: dict[int, list[Arrays]] = {}
        self._regions: Iterator[list[Region]] | None = None

    def result(self) -> dict[str, float]:
        """Return the mean over all categories of the latest evaluation."""
        return _defined(_means(self._categories, self.names))

    def __str__(self) -> str:
        return "AnomalyMetrics"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all values, see :func:`metric_names`."""
        return metric_names(self.metrics, oracle=self.oracle)

    def anew(self) -> AnomalyMetrics:
        """Return metrics of the same kind that have measured nothing yet."""
        return AnomalyMetrics(
            self.category_names,
            metrics=self.metrics,
            oracle=self.oracle,
            per_category=self.per_category,
        )

    def _start_evaluation(self) -> None:
        self._categories: list[Values] = []
        self._forgetting: list[Values] = []

    def before_training_exp(self, strategy: Any) -> None:
        """Note which experience is being learned."""
        self._training_experience = learning_experience(strategy)

    def before_eval(self, strategy: Any) -> None:
        """Start the means over the stream."""
        self._start_evaluation()

    def before_eval_exp(self, strategy: Any) -> None:
        """Drop what an interrupted evaluation may have left."""
        self._gathered = {}
        wanted = any(isinstance(metric, RegionMetric) for metric in self.metrics)
        self._regions = regions_of(strategy.experience) if wanted else None

    def after_eval_iteration(self, strategy: Any) -> None:
        """Score the minibatch and keep scores, masks and flags on the CPU."""
        learned = getattr(strategy.model, "known_categories", None)
        if len(strategy.mbatch) < 4 or (learned is not None and not len(learned)):
            return  # no test items, or nothing learned yet to score them by
        _, category, is_anomaly, mask = strategy.mbatch[:4]
        pixels = self._wants("pixel")
        batch: Arrays = {"is_anomaly": is_anomaly.bool().cpu().numpy()}
        if pixels:
            batch["mask"] = mask.bool().cpu().numpy()
            batch["known"] = known_masks(mask).cpu().numpy()
            batch["mask"] &= batch["known"][:, None, None]
        if self._regions is not None:
            batch["regions"] = next_regions(self._regions, batch["mask"])
        size = tuple(mask.shape[-2:])
        scores = _score(strategy, size, None)
        batch["inferred"] = scores.category.cpu().numpy()
        self._gather(batch, scores, "", pixels)
        if self.oracle:
            # Inferred right, which is the rule, both scores are the same; of a category
            # that has not been learned there is no oracle score.
            known = _known(strategy, category)
            given = category.where(known, scores.category)
            if not bool((given == scores.category).all()):
                scores = _score(strategy, size, given)
            self._gather(batch, scores, ORACLE, pixels)
            unknown = ~known.cpu().numpy()
            for key in ("image" + ORACLE, "maps" + ORACLE):
                if key in batch and unknown.any():
                    batch[key] = batch[key].copy()
                    batch[key][unknown] = np.nan
        y = category.cpu().numpy()
        for index in np.unique(y).tolist():
            chosen = {key: array[y == index] for key, array in batch.items()}
            self._gathered.setdefault(index, []).append(chosen)

    @staticmethod
    def _gather(batch: Arrays, scores: Any, suffix: str, pixels: bool) -> None:
        batch["image" + suffix] = scores.image.detach().float().cpu().numpy()
        if pixels:
            batch["maps" + suffix] = scores.maps.detach().float().cpu().numpy()

    def _wants(self, level: str) -> bool:
        return any(metric.level == level for metric in self.metrics)

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        """Measure every category of the experience and what has been forgotten."""
        if not self._gathered:
            return []
        experience = strategy.experience.current_experience
        stream = stream_type(strategy.experience)
        emitted: list[MetricValue] = []
        categories: list[Values] = []
        for index in sorted(self._gathered):
            batches = self._gathered.pop(index)
            name = self._category_name(index)
            values = self._measure(
                name,
                index,
                {key: np.concatenate([b[key] for b in batches]) for key in batches[0]},
            )
            categories.append(values)
            self.history.append(
                {
                    "step": strategy.clock.train_iterations,
                    "training_experience": self._training_experience,
                    "stream": stream,
                    "experience": experience,
                    "category": name,
                    **values,
                }
            )
            if self.per_category:
                emitted += self._emit(
                    strategy, {key: values[key] for key in self.names}, f"/{name}"
                )
        self._categories += categories
        now = _means(categories, self.names)
        emitted += self._emit(strategy, now)

        if experience == self._training_experience:
            self._learned[stream, experience] = now
        elif (stream, experience) in self._learned:
            learned = self._learned[stream, experience]
            lost = {name: difference(learned[name], now[name]) for name in now}
            self._forgetting.append(lost)
            emitted += self._emit(strategy, _forgetting_and_transfer(lost))
        return emitted

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the means over all categories and over all experiences learned."""
        means = _means(self._categories, self.names)
        lost = _means(self._forgetting, self.names)
        return self._emit(
            strategy, {**means, **_forgetting_and_transfer(lost)}, of_stream=True
        )

    def _measure(self, name: str, index: int, data: Arrays) -> Values:
        """Compute all metrics of one category, and the thresholds at F1-max."""
        truth = np.full_like(data["inferred"], index)
        right = data["inferred"] == truth
        try:
            found = self._of_scores(data, "")
            for metric in self.metrics:
                if metric.level == "category":
                    found[metric.name] = computed(metric, data["inferred"], truth)
            if self.oracle and right.all():
                found |= {key + ORACLE: value for key, value in found.items()}
            elif self.oracle and not np.isnan(data.get("image" + ORACLE, 0.0)).any():
                found |= self._of_scores(data, ORACLE)
        except AvalancheADError as error:
            raise AvalancheADError(f"category {name!r}: {error}") from error
        # that masks are not known has been told when the data were opened
        lacking = {
            level: missing_class(data[_PARTS[level][1]])
            for level in _PARTS
            if any(one.level == level and one.needs_both for one in self.metrics)
            and (level == "image" or data["known"].all())
        }
        self._warn(name, lacking.get("image"), lacking.get("pixel"))
        kept = (*self.names, "image_threshold", "pixel_threshold")
        return {key: found.get(key) for key in kept}

    def _of_scores(self, data: Arrays, suffix: str) -> Values:
        """Compute the metrics of one kind of scores."""
        found: Values = {}
        for level, (scores, labels) in _PARTS.items():
            if not self._wants(level):
                continue
            of, truth, regions = data[scores + suffix], data[labels], None
            if level == "pixel":
                known = data["known"]
                if not (known & data["is_anomaly"]).any() and not known.all():
                    continue
                of, truth = of[known], truth[known]
                if "regions" in data:
                    regions = list(data["regions"][known])
            found |= level_values(self.metrics, level, of, truth, regions)
        return {key + suffix: value for key, value in found.items()}

    def _warn(self, category: str, image: str | None, pixel: str | None) -> None:
        missing = [f"no {image} image"] if image else []
        missing += [f"no {pixel} pixel"] if pixel else []
        if missing and category not in self._warned:
            self._warned.add(category)
            warnings.warn(
                f"category {category!r} has {' and '.join(missing)} in its test split, "
                "so the metrics that need them are undefined (null)",
                UndefinedMetricWarning,
                stacklevel=2,
            )

    def _category_name(self, index: int) -> str:
        if not 0 <= index < len(self.category_names):
            raise AvalancheADError(
                f"the stream holds category index {index}, and the names of "
                f"{counted(len(self.category_names), 'category')} were given; pass "
                "those of all categories of the benchmark"
            )
        return self.category_names[index]

    def _emit(
        self,
        strategy: Any,
        values: Values,
        suffix: str = "",
        *,
        of_stream: bool = False,
    ) -> list[MetricValue]:
        """Package the defined values under Avalanche's naming convention."""
        return [
            MetricValue(
                self,
                get_metric_name(
                    name,
                    strategy,
                    add_experience=not of_stream,
                    # the last experience's task says nothing about a stream
                    add_task=not of_stream,
                )
                + suffix,
                value,
                strategy.clock.train_iterations,
            )
            for name, value in _defined(values).items()
        ]


def _known(strategy: Any, category: torch.Tensor) -> torch.Tensor:
    """Say of each image whether the model has learned its category, (N,)."""
    learned = getattr(strategy.model, "known_categories", None)
    if learned is None:
        return torch.ones_like(category, dtype=torch.bool)
    return torch.isin(category, learned)


def _score(
    strategy: Any,
    mask_size: tuple[int, ...],
    category: Any,
) -> Any:
    score = getattr(strategy.model, "score", None)
    if score is None:
        raise AvalancheADError(
            f"model {type(strategy.model).__name__} has no method score(output, "
            "mask_size=, category=), which anomaly metrics need; use a model such as "
            "FlowGMM"
        )
    return score(strategy.mb_output, mask_size=mask_size, category=category)


def _means(rows: Sequence[Values], names: Sequence[str]) -> Values:
    return {name: mean_defined(row[name] for row in rows) for name in names}


def _defined(values: Values) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _forgetting_and_transfer(lost: Values) -> Values:
    transfer = {
        f"{name}_bwt": None if value is None else -value for name, value in lost.items()
    }
    return {f"{name}_forgetting": value for name, value in lost.items()} | transfer
