"""Generative replay whose generator is the model that is trained."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from avalanche.training.plugins import GenerativeReplayPlugin

__all__ = ["SelfGenerativeReplayPlugin"]


class SelfGenerativeReplayPlugin(GenerativeReplayPlugin):  # type: ignore[misc]
    """Rehearse samples that the model of before the experience draws and labels.

    Avalanche's plugin without a generator of its own takes the model for a generator
    alone and gives all samples the label 0. A flow-GMM is generator and classifier in
    one, so here a copy of it, taken when the experience before was learned, draws the
    samples with ``generate`` and labels each by its most likely category. (Avalanche
    takes its copy after the model has got room for the new categories, of which a
    flow-GMM would draw as well.)

    :param replay_size: samples beside each minibatch, as many as it holds by default.
    :param increasing_replay_size: multiply that number by the experience's index
        instead, where no ``replay_size`` is given.

    Source: Shin et al., "Continual Learning with Deep Generative Replay", NeurIPS
    2017, arXiv 1705.08690.

    >>> SelfGenerativeReplayPlugin(replay_size=8).replay_size
    8
    """

    def __init__(
        self, replay_size: int | None = None, increasing_replay_size: bool = False
    ) -> None:
        super().__init__(
            replay_size=replay_size, increasing_replay_size=increasing_replay_size
        )

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the strategy's own model for generator and solver."""
        self.generator_strategy = strategy
        self.generator = strategy.model

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the copy was taken when the experience before was learned."""

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Copy the model that the next experience rehearses."""
        self.untrained_solver = False
        self.old_generator = self.old_model = deepcopy(strategy.model).eval()
