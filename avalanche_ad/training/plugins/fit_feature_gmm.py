"""Fit the flow-free reference model when a category arrives."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.training.dynamic import features_by_category

__all__ = ["FitFeatureGMMPlugin"]


class FitFeatureGMMPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Before each experience, fit a mixture per new category in feature space.

    A category is fitted once, on its own training normals, and never touched again, so
    the model cannot forget. Use with a :class:`FeatureGMM` and no training epochs.
    """

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Fit the categories the model does not know yet."""
        model = strategy.model
        if not isinstance(model, FeatureGMM):
            raise TrainingError(
                f"FitFeatureGMMPlugin fits a FeatureGMM, got a {type(model).__name__}: "
                'set [model] type = "feature_gmm" in the strategy\'s recipe'
            )
        known = set(model.known_categories.tolist())
        # What the strategy trains on: every experience at once in joint training.
        features_of = features_by_category(strategy.adapted_dataset)
        for category, features in features_of.items():
            if category not in known:
                model.fit_category(category, features.to(strategy.device))
