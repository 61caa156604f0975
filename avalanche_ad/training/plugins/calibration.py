"""Calibrate the scores on training normals when an experience has been learned."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.copies import copies_of
from avalanche_ad.models.thresholds import HeldOutScores, images_needed
from avalanche_ad.training.dynamic import category_names
from avalanche_ad.training.experiences import experiences_of

__all__ = ["CalibrationPlugin"]


class CalibrationPlugin(SupervisedPlugin):  # type: ignore[misc]
    """After each experience, set the score's constants from training normals.

    One pass over the strategy's own dataloader, so exactly the data it trains on are
    used: the current experience's, those a replay memory adds, or all of it under joint
    and cumulative training. Categories that are not there keep their constants. An
    evaluation within training (``eval_every``) is calibrated likewise.

    With ``mask_size`` every category in that data also gets the scores of its normals,
    all of them, each scored without it
    (:meth:`~avalanche_ad.models.anomaly_model.AnomalyModel.held_out_scores`), and from
    them the score above which new normals lie at a known rate. What training by
    gradient has seen of an image stays: a flow is not trained anew for each fold.

    Scores are of the model at that time; a category whose images are gone keeps its
    own. Fewer images than those, as a blurry stream's strays or a small memory, take
    their place only where the density was not held out, so that it moved with the flow,
    and they are enough for the quantile
    (:func:`~avalanche_ad.models.thresholds.images_needed`). Scores of another kind than
    the model gives now, as the first category's from before there was a second to be
    uncertain about, are dropped.

    :param images_per_category: the constants are of the first so many images of each
        category.
    :param mask_size: edge of the score maps in pixels; with it, thresholds are taken.
    :param quantile: share of a category's new normals that lie below its threshold.
    :param folds: into how many parts a category's normals are parted.

    ``held_out`` maps a category index to its normals' scores, ``thresholds`` to the
    threshold of ``quantile``, ``density_held_out`` to whether their density was fitted
    without each of them. A category that only ever had a single image has none.

    :raises TrainingError: after an experience, when a constant or a score of the
        training normals is not finite.

    >>> CalibrationPlugin(mask_size=128, quantile=0.99).thresholds
    {}
    """

    def __init__(
        self,
        images_per_category: int = 32,
        mask_size: int | None = None,
        quantile: float = 0.95,
        folds: int = 16,
    ) -> None:
        super().__init__()
        self.images_per_category = images_per_category
        self.mask_size = mask_size
        self.quantile = quantile
        self.folds = folds
        self.held_out: dict[int, HeldOutScores] = {}
        self.thresholds: dict[int, float] = {}
        self.density_held_out: dict[int, bool] = {}
        self._kinds: dict[int, str] = {}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse a stream whose categories are not those the model has learned.

        :raises TrainingError: when a category's index has another name.
        """
        if isinstance(strategy.model, AnomalyModel):
            # joint training has several
            learned = experiences_of(strategy)
            for experience in learned:
                strategy.model.name_categories(category_names(experience.dataset))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Calibrate the strategy's model, and take its thresholds."""
        if not isinstance(strategy.model, AnomalyModel):
            return
        others: dict[int, dict[bytes, Tensor]] = {}
        counts = self._calibrate(strategy.model, strategy, others)
        if self.mask_size is not None:
            self._drop_others_than(strategy.model.kind_in_use)
            with torch.random.fork_rng(devices=[]):  # a data loader draws too
                for category, x in self._normals(strategy, others):
                    self._hold_out(strategy, category, x, counts[category])

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
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

    def _calibrate(
        self,
        model: AnomalyModel,
        strategy: Any,
        others: dict[int, dict[bytes, Tensor]] | None = None,
    ) -> Counter[int]:
        """Set the constants, and return of how many images each category's are."""
        batches = list(self._batches(strategy, others))
        model.calibrate(batches)
        counts = Counter(category for _, y in batches for category in y.tolist())
        self._check(model.constants(sorted(counts)), "score's constants", strategy)
        return counts

    def _hold_out(
        self,
        strategy: Any,
        category: int,
        x: Tensor,
        images: int,
    ) -> None:
        """Take a category's scores and threshold from its normals, if they serve."""
        count = len(torch.unique(copies_of(x)))
        if count < 2 or not self._better(category, count):
            return
        assert self.mask_size is not None
        model, size = strategy.model, (self.mask_size, self.mask_size)
        scores = model.held_out_scores(
            category, x.to(strategy.device), size, folds=self.folds, images=images
        )
        self._check(scores, "scores of training normals", strategy)
        self.held_out[category] = HeldOutScores(scores.tolist())
        self.thresholds[category] = self.held_out[category].threshold(self.quantile)
        self.density_held_out[category] = model.holds_out_density(category, len(x))
        self._kinds[category] = model.kind_in_use

    def _better(self, category: int, count: int) -> bool:
        """Whether scores of so many images are better than those there are."""
        if category not in self.held_out or count >= len(self.held_out[category]):
            return True
        return not self.density_held_out[category] and count >= images_needed(
            self.quantile
        )

    def _drop_others_than(self, kind: str) -> None:
        """Drop the scores that compare with none that the model gives now."""
        for category in [c for c, of in self._kinds.items() if of != kind]:
            for kept in (self.held_out, self.thresholds, self.density_held_out):
                del kept[category]
            del self._kinds[category]

    @staticmethod
    def _normals(
        strategy: Any,
        others: dict[int, dict[bytes, Tensor]],
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield each category's images, one category in memory at a time.

        Copies included, as the density was fitted to; those that a memory repeats once.
        """
        dataset = strategy.adapted_dataset
        rows: dict[int, list[int]] = {}
        for row, category in enumerate(dataset.targets):
            rows.setdefault(int(category), []).append(row)
        for category in sorted(rows):
            loader = DataLoader(Subset(dataset, rows[category]), batch_size=64)
            yield category, torch.cat([batch[0] for batch in loader])
        for category in sorted(others):
            yield category, torch.stack(list(others[category].values()))

    @staticmethod
    def _check(values: Tensor, what: str, strategy: Any) -> None:
        """Stop a model that diverged in its last steps, after which no loss is seen."""
        if bool(torch.isfinite(values).all()):
            return
        raise TrainingError(
            f"the {what} became NaN or infinite after experience "
            f"{strategy.clock.train_exp_counter}: training has diverged; lower the "
            "learning rate ([training] lr) or the gradient norm ([training] "
            "gradient_clip)"
        )

    def _batches(
        self,
        strategy: Any,
        others: dict[int, dict[bytes, Tensor]] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the first images of each category in the strategy's dataloader.

        :param others: takes the images, once each, of categories that are in the loader
            and not in the strategy's data set: a replay memory's.
        """
        seen: Counter[int] = Counter()
        own = (
            set() if others is None else set(map(int, strategy.adapted_dataset.targets))
        )
        batches = []
        for batch in strategy.dataloader:
            x, y = batch[0], batch[1]
            wanted = []
            for row, category in enumerate(y.tolist()):
                if others is not None and category not in own:
                    others.setdefault(category, {})[_digest(x[row])] = x[row].clone()
                if seen[category] < self.images_per_category:
                    seen[category] += 1
                    wanted.append(row)
            if wanted:
                rows = (x[wanted].to(strategy.device), y[wanted].to(strategy.device))
                batches.append(rows)
        return batches


def _digest(x: Tensor) -> bytes:
    """Return what tells an image's features from all others'."""
    return hashlib.blake2b(
        x.cpu().contiguous().numpy().tobytes(), digest_size=16
    ).digest()
