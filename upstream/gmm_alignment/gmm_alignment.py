################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

from typing import Any, Dict

import torch

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins.feature_statistics_replay import (
    GaussianStatistics,
    update_statistics,
)


class GMMAlignmentPlugin(SupervisedPlugin):
    """
    After each experience, align the classes' Gaussians of a flow-GMM with its
    flow.

    When a flow is trained on new classes, it still maps the features of old
    ones to a place of their own, but no longer to where their Gaussians are:
    what looks like forgetting is a mismatch. The plugin keeps Gaussian
    statistics of each class's features, which are frozen and so never drift.
    After each experience it draws features of every class from them, maps them
    by the flow as it is now, and fits the class's Gaussian to the latents. No
    image is kept.

    It works with models that have :meth:`latents` and :meth:`align`, such as
    :class:`avalanche.models.FlowGMM`.
    """

    def __init__(self, rank: int = 32, samples: int = 1000):
        """
        :param rank: modes of each class's covariance that are kept, see
            :class:`GaussianStatistics`.
        :param samples: features drawn of each class.
        """
        super().__init__()
        self.rank = rank
        self.samples = samples
        self.statistics: Dict[int, GaussianStatistics] = {}

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """
        Take the statistics of the experience's classes, and align all.
        """
        update_statistics(self.statistics, strategy, self.rank)
        model = strategy.model
        training = model.training
        model.eval()
        # what is drawn here shall not change the steps to come
        with torch.random.fork_rng(devices=[]):
            for label, own in self.statistics.items():
                x = own.sample(self.samples).to(strategy.device)
                model.align(label, model.latents(x)[0])
        model.train(training)


__all__ = ["GMMAlignmentPlugin"]
