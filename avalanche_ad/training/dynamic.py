"""The models as Avalanche dynamic modules: categories are added as they arrive."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.benchmarks.scenarios import CLExperience
from avalanche.models.dynamic_modules import DynamicModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.models.flow_gmm import FlowGMM

__all__ = ["DynamicFeatureGMM", "DynamicFlowGMM", "features_by_category"]


def features_by_category(dataset: Dataset[Any]) -> dict[int, Tensor]:
    """Gather packed training features by category.

    :param dataset: items (features, category, …) of a feature stream.
    :return: category index → (N, size).
    """
    batches = [(batch[0], batch[1]) for batch in DataLoader(dataset, batch_size=64)]
    x = torch.cat([batch[0] for batch in batches])
    y = torch.cat([batch[1] for batch in batches])
    return {category: x[y == category] for category in sorted(set(y.tolist()))}


class DynamicFlowGMM(FlowGMM, DynamicModule):  # type: ignore[misc]
    """A :class:`FlowGMM` that Avalanche's strategies grow: give this one to a strategy.

    Takes the arguments of :class:`FlowGMM`. In training, ``adaptation`` starts the
    mixture groups of the experience's new categories; in evaluation it does nothing.
    """

    _auto_adapt = True

    def adaptation(self, experience: CLExperience) -> None:
        """Start the mixture groups of the categories that are new in an experience."""
        if not self.training:
            return
        arriving = sorted(experience.classes_in_this_experience)
        new = set(arriving) - set(self.known_categories.tolist())
        features = None
        if new and self.center_init == "data":
            features = {
                category: x.to(self.level_maximum.device)
                for category, x in features_by_category(experience.dataset).items()
            }
        self.add_categories(arriving, features)


class DynamicFeatureGMM(FeatureGMM, DynamicModule):  # type: ignore[misc]
    """A :class:`FeatureGMM` that Avalanche's strategies can hold.

    It is fitted by :class:`~avalanche_ad.training.plugins.FitFeatureGMMPlugin`.
    """

    _auto_adapt = True

    def adaptation(self, experience: CLExperience) -> None:
        """Do nothing: categories start when they are fitted."""
