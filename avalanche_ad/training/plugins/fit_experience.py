"""Fit a model that is fitted, not trained, when an experience arrives."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.training.dynamic import Batches

__all__ = ["FitExperiencePlugin", "FitFeatureGMMPlugin"]


class FitExperiencePlugin(SupervisedPlugin):  # type: ignore[misc]
    """Before each experience, fit the model to the images that it brings.

    Of use with a model that is fitted
    (:meth:`~avalanche_ad.models.AnomalyModel.fit_experience`), such as a
    :class:`FeatureGMM`, and no training epochs. A run adds it to such a model by
    itself.

    >>> FitExperiencePlugin()  # doctest: +ELLIPSIS
    <avalanche_ad...FitExperiencePlugin object at ...>
    """

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fit the model to what the strategy trains on.

        Under joint training that is every experience at once.
        """
        model = strategy.model
        if not isinstance(model, AnomalyModel) or model.trained:
            raise TrainingError(
                f"{type(self).__name__} fits a model that is not trained, got a "
                f"{type(model).__name__}: set [model] type in the strategy's recipe, "
                'such as type = "feature_gmm"'
            )
        model.fit_experience(Batches(strategy.adapted_dataset, strategy.device))


class FitFeatureGMMPlugin(FitExperiencePlugin):
    """:class:`FitExperiencePlugin` by the name that earlier recipes give it."""
