"""What the plugins that use feature statistics have in common: they take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.alignment import Alignment
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.models.gaussians import (
    FeatureStatistics,
    KeptStatistics,
    PlaceStatistics,
    StatisticsForm,
    StatisticsPrecision,
)
from avalanche_ad.registry.options import AtLeastTwo, Count, NonNegative, Seed
from avalanche_ad.training.dynamic import features_by_category
from avalanche_ad.training.plugins.requirements import check_positions, required

__all__ = ["StatisticsKeeper", "agreed_options"]


_DEFAULTS: dict[str, Any] = {
    "components": 10,
    "statistics": "full",
    "rank": 16,
    "mean_field": False,
    "precision": "float16",
    "shrinkage": 1e-2,
    "max_positions": 5000,
    "max_iter": 4,
}
# of the statistics alone, and of no use to a plugin that keeps none
_OF_STATISTICS = (
    *("statistics", "rank", "mean_field", "precision", "max_positions", "max_iter"),
)


class StatisticsKeeper(SupervisedPlugin):  # type: ignore[misc]
    """After each experience, keep the statistics of its categories with the model.

    Several of these plugins on one strategy share what the first of them takes, and so
    they share the options here: what one of them is given holds for all, and a second
    that is given another value is refused before anything is learned. One that is given
    to none has its default.

    :param components: Gaussians K per category and level, 10 by default.
    :param statistics: form of their covariances, ``"full"`` by default, or ``"place"``
        for a Gaussian at every position
        (:class:`~avalanche_ad.models.gaussians.PlaceStatistics`).
    :param rank: of ``"low_rank"`` covariances, 16 by default.
    :param mean_field: whether a mean per position is kept; not by default.
    :param precision: type of number that is kept, ``"float16"`` by default.
    :param shrinkage: of the covariances, relative to the mean variance, 0.01 by
        default.
    :param max_positions: feature vectors per category and level that the EM sees, 5000
        by default.
    :param max_iter: its steps at most, 4 by default. Few vectors and few steps are a
        tenth of :class:`FeatureStatistics`' own time, and detect defects no worse.
    :param seed: decides the vectors used and the start of the EM; the model's by
        default.
    :param others: of the class that comes next in a subclass of several.

    >>> StatisticsKeeper(statistics="low_rank").option("rank")
    16
    """

    # statistics of more images take the place of a stray few's
    needs_disjoint_categories = False
    needs_positions = True
    keeps_statistics = True
    aligns = False  # whether it gives a model aligned mixtures

    def __init__(
        self,
        components: Count | None = None,
        statistics: StatisticsForm | None = None,
        rank: Count | None = None,
        mean_field: bool | None = None,
        precision: StatisticsPrecision | None = None,
        shrinkage: NonNegative | None = None,
        max_positions: AtLeastTwo | None = None,
        max_iter: Count | None = None,
        seed: Seed | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        given = {
            "components": components,
            "statistics": statistics,
            "rank": rank,
            "mean_field": mean_field,
            "precision": precision,
            "shrinkage": shrinkage,
            "max_positions": max_positions,
            "max_iter": max_iter,
            "seed": seed,
        }
        self.stated = {name: one for name, one in given.items() if one is not None}
        self._agreed: dict[str, Any] = {}

    def option(self, name: str) -> Any:
        """Return an option's value: what was agreed, stated, or its default."""
        return {**_DEFAULTS, **self.stated, **self._agreed}[name]

    @property
    def components(self) -> int:
        """Gaussians per category and level."""
        return int(self.option("components"))

    @property
    def shrinkage(self) -> float:
        """Of the covariances, relative to the mean variance."""
        return float(self.option("shrinkage"))

    @property
    def seed(self) -> int | None:
        """Of the EM; that of the model from training on, unless stated."""
        seed: int | None = {**self.stated, **self._agreed}.get("seed")
        return seed

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Check the model, and agree on the options with the strategy's other plugins.

        :raises TrainingError: for a model without one flow and a mixture, or options
            that contradict another plugin's or the model's own statistics.
        """
        model = required(strategy.model, FlowModel, self, "keeps statistics with")
        if model.flow_per_task:
            raise TrainingError(
                f"{type(self).__name__} follows one flow, and under PackNet every task "
                "has its own: leave one of the two out"
            )
        check_positions(model.kernel, type(self))
        kept = model.alignment.statistics if self.keeps_statistics else None
        agreed = agreed_options(
            [*getattr(strategy, "plugins", ()), self],
            self,
            None if kept is None else kept.form,
        )
        self._agreed = {
            "seed": model.seed,
            **agreed,
            **self._form_of(model.alignment, agreed),
        }
        super().before_training_exp(strategy, *args, **kwargs)

    def _form_of(
        self, alignment: Alignment, agreed: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the options that a model which has learned already decides.

        :raises TrainingError: when another value is stated.
        """
        form: dict[str, Any] = {}
        widest = max(width for _, _, width in alignment.layout.levels)
        if self.aligns and len(alignment):
            form["components"] = alignment.components
        if self.keeps_statistics and (kept := alignment.statistics) is not None:
            form["components"] = kept.components
            form["statistics"] = kept.form
            form["mean_field"] = kept.mean_field
            form["precision"] = kept.precision
            if kept.form == "low_rank":
                form["rank"] = min(kept.rank, widest)
        for name, value in form.items():
            wanted = agreed.get(name, value)
            if name == "rank":  # which is cut to the levels' width
                wanted = min(wanted, widest)
            if wanted != value:
                raise TrainingError(
                    f"{type(self).__name__} has {name} = {wanted!r}, and what the "
                    f"model has learned is of {name} = {value!r}: leave {name} out, or "
                    "start with a new model"
                )
        return form

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the statistics of the categories learned that have none yet."""
        super().after_training_exp(strategy, *args, **kwargs)
        # a data loader draws too
        with torch.random.fork_rng(devices=[]):
            self.keep(strategy.model, features_by_category(strategy.adapted_dataset))

    def _new_statistics(self, model: FlowModel) -> KeptStatistics:
        """Return statistics of the form agreed on, of no category."""
        form, precision = self.option("statistics"), self.option("precision")
        if form == "place":
            return PlaceStatistics(model.layout, self.components, precision=precision)
        return FeatureStatistics(
            model.layout,
            self.components,
            form,
            rank=self.option("rank"),
            mean_field=self.option("mean_field"),
            precision=precision,
        )

    def keep(self, model: FlowModel, features: dict[int, Tensor]) -> None:
        """Take the statistics of categories that have none yet, or of fewer images.

        The latter where a category's first few images arrived early, in a blurry
        stream.

        :param model: what they are kept with.
        :param features: features (N, size) by category.
        """
        device = model.device
        if model.alignment.statistics is None:
            made = self._new_statistics(model)
            model.alignment.statistics = made.to(device)
        statistics = model.alignment.statistics
        # a loaded model's say their form alone
        statistics.shrinkage = self.shrinkage
        statistics.max_positions = self.option("max_positions")
        statistics.max_iter = self.option("max_iter")
        statistics.seed = self.seed or 0
        statistics.resize(max(features, default=-1) + 1)
        for category, x in features.items():
            if len(x) > int(statistics.images[category]):
                statistics.fit_category(category, x.to(device))


def agreed_options(
    plugins: Iterable[object],
    of: StatisticsKeeper,
    learned: StatisticsForm | None = None,
) -> dict[str, Any]:
    """Return the options stated for what a plugin shares with others of a strategy.

    The plugins that keep statistics share those, and the plugins that align mixtures
    share these.

    :param plugins: a strategy's plugins.
    :param of: one of them.
    :param learned: form of the statistics that the model has, where none is stated.
    :raises TrainingError: when two of them state different values, or one states what
        has no effect.
    """
    sharing = _sharing([p for p in plugins if isinstance(p, StatisticsKeeper)], of)
    owner: dict[str, StatisticsKeeper] = {}
    for plugin in sharing:
        for name, value in plugin.stated.items():
            first = owner.setdefault(name, plugin)
            if first.stated[name] != value:
                raise TrainingError(
                    f"{type(first).__name__} has {name} = {first.stated[name]!r} and "
                    f"{type(plugin).__name__} has {name} = {value!r}, but they share "
                    f"one value: give {name} to one of them alone"
                )
        if not plugin.keeps_statistics:
            for name in _OF_STATISTICS:
                if name in plugin.stated:
                    raise TrainingError(
                        f"{type(plugin).__name__} keeps no statistics, so {name} = "
                        f"{plugin.stated[name]!r} has no effect: leave it out"
                    )
    agreed = {name: plugin.stated[name] for name, plugin in owner.items()}
    form = agreed.get("statistics", learned or _DEFAULTS["statistics"])
    if "rank" in agreed and form != "low_rank":
        raise TrainingError(
            f"{type(owner['rank']).__name__} has rank = {agreed['rank']!r}, which has "
            f"no effect on statistics of the form {form!r}: leave it out, or set "
            "statistics = 'low_rank'"
        )
    if "mean_field" in agreed and form == "place":
        raise TrainingError(
            f"{type(owner['mean_field']).__name__} has mean_field = "
            f"{agreed['mean_field']!r}, which has no effect on statistics of the form "
            "'place', which have one anyhow: leave it out"
        )
    return agreed


def _sharing(
    keepers: Sequence[StatisticsKeeper], of: StatisticsKeeper
) -> list[StatisticsKeeper]:
    """Return the plugins that share their options with one of them, in order."""
    both = any(plugin.keeps_statistics and plugin.aligns for plugin in keepers)
    return [
        plugin
        for plugin in keepers
        if both or plugin.keeps_statistics == of.keeps_statistics
    ]
