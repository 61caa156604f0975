"""Calibrate the scores on training normals when an experience has been learned."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.base import AnomalyModel, evaluating
from avalanche_ad.training.dynamic import category_names

__all__ = ["CalibrationPlugin"]


class CalibrationPlugin(SupervisedPlugin):  # type: ignore[misc]
    """After each experience, set the score's constants from training normals.

    One pass over the strategy's own dataloader, so exactly the data it trains on are
    used: the current experience's, those a replay memory adds, or all of it under joint
    and cumulative training. Categories that are not there keep their constants. An
    evaluation within training (``eval_every``) is calibrated likewise.

    :param images_per_category: the first so many images of each category.
    :param mask_size: edge of the score maps in pixels; with it, ``thresholds`` are set.
    :param quantile: share of a category's training normals below its threshold.

    ``thresholds`` maps a category index to the quantile of its normals' image scores,
    taken when the category was last in the data.

    :raises TrainingError: after an experience, when a constant or a score of the
        training normals is not finite.
    """

    def __init__(
        self,
        images_per_category: int = 32,
        mask_size: int | None = None,
        quantile: float = 0.95,
    ) -> None:
        super().__init__()
        self.images_per_category = images_per_category
        self.mask_size = mask_size
        self.quantile = quantile
        self.thresholds: dict[int, float] = {}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Refuse a stream whose categories are not those the model has learned.

        :raises TrainingError: when a category's index has another name.
        """
        if isinstance(strategy.model, AnomalyModel):
            # joint training has several
            learned = getattr(strategy, "_experiences", None) or [strategy.experience]
            for experience in learned:
                strategy.model.name_categories(category_names(experience.dataset))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Calibrate the strategy's model."""
        if isinstance(strategy.model, AnomalyModel):
            self._calibrate(strategy.model, strategy)

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Calibrate for an evaluation in the middle of training."""
        model = strategy.model
        # the dataloader is empty outside training
        if (
            isinstance(model, AnomalyModel)
            and len(strategy.dataloader)
            and len(model.known_categories)
        ):
            with torch.random.fork_rng(devices=[]):
                self._calibrate(model, strategy)

    def _calibrate(self, model: AnomalyModel, strategy: Any) -> None:  # noqa: ANN401
        batches = self._batches(strategy)
        model.calibrate(batches)
        known = sorted({category for _, y in batches for category in y.tolist()})
        self._check(model.level_maximum[known], "score's constants", strategy)
        if self.mask_size is None:
            return
        size = (self.mask_size, self.mask_size)
        with evaluating(model):
            scores = torch.cat([model.score(model(x), size).image for x, _ in batches])
        categories = torch.cat([y for _, y in batches])
        self._check(scores, "scores of training normals", strategy)
        for category in known:
            own = scores[categories == category].double()
            self.thresholds[category] = float(torch.quantile(own, self.quantile))

    @staticmethod
    def _check(values: Tensor, what: str, strategy: Any) -> None:  # noqa: ANN401
        """Stop a model that diverged in its last steps, after which no loss is seen."""
        if bool(torch.isfinite(values).all()):
            return
        raise TrainingError(
            f"the {what} became NaN or infinite after experience "
            f"{strategy.clock.train_exp_counter}: training has diverged; lower the "
            "learning rate ([training] lr) or the gradient norm ([training] "
            "gradient_clip)"
        )

    def _batches(self, strategy: Any) -> list[tuple[Tensor, Tensor]]:  # noqa: ANN401
        seen: Counter[int] = Counter()
        batches = []
        for batch in strategy.dataloader:
            x, y = batch[0], batch[1]
            wanted = []
            for row, category in enumerate(y.tolist()):
                if seen[category] < self.images_per_category:
                    seen[category] += 1
                    wanted.append(row)
            if wanted:
                rows = (x[wanted].to(strategy.device), y[wanted].to(strategy.device))
                batches.append(rows)
        return batches
