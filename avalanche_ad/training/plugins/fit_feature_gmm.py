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

    A category is fitted on its own training normals and not touched again, so the model
    cannot forget. Where an experience brings more images of a category than it was
    fitted on (its first few arrived early, in a blurry stream), it is fitted anew, on
    those of that experience alone. Use with a :class:`FeatureGMM` and no training
    epochs.

    ``fitted_on`` maps a category to the number of images it was fitted on.

    >>> import torch
    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> from avalanche_ad.features import FeatureLayout
    >>> strategy = SimpleNamespace(
    ...     model=FeatureGMM(FeatureLayout(((4, 4, 8),))),
    ...     adapted_dataset=[(torch.randn(128), 2) for _ in range(5)],
    ...     device="cpu",
    ... )
    >>> plugin = FitFeatureGMMPlugin()
    >>> plugin.before_training_exp(strategy)
    >>> plugin.fitted_on
    {2: 5}
    """

    def __init__(self) -> None:
        super().__init__()
        self.fitted_on: dict[int, int] = {}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fit the categories that are new, or of which there are more images now."""
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
            # a category that was not fitted here is left as it is
            before = self.fitted_on.get(category, len(features))
            if category not in known or len(features) > before:
                model.fit_category(category, features.to(strategy.device))
                self.fitted_on[category] = len(features)
