"""PackNet with a post-pruning phase that fits any number of epochs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from avalanche.models.packnet import PackNetModule
from avalanche.models.packnet import PackNetPlugin as AvalanchePackNetPlugin
from avalanche.training.supervised import JointTraining

from avalanche_ad.errors import TrainingError

__all__ = ["PackNetPlugin"]


class PackNetPlugin(AvalanchePackNetPlugin):  # type: ignore[misc]
    """Avalanche's ``PackNetPlugin``, its post-pruning phase a share of the epochs.

    A subset has to recover from its pruning while the learning rate still lets it, and
    rate and number of epochs are the stream's: under a cosine decay the last one epoch
    of many recovers nothing. And it keeps the optimizer's parameter groups, with their
    weight decay and rates, where Avalanche's builds one group of them all.

    :param post_prune_share: share of an experience's epochs after the pruning; at least
        one epoch comes before it and one after.
    :param prune_proportion: share of the current task's weights that it gives up; a
        list holds one share an experience, a function is given its index.

    >>> plugin = PackNetPlugin(post_prune_share=0.25, prune_proportion=[0.5, 0.75])
    >>> plugin.prune_proportion(1)
    0.75
    >>> PackNetPlugin(post_prune_share=25)
    Traceback (most recent call last):
    ...
    avalanche_ad.errors.TrainingError: expected post_prune_share as a share...
    """

    def __init__(
        self,
        post_prune_share: float = 0.5,
        prune_proportion: float | list[float] | Callable[[int], float] = 0.5,
    ) -> None:
        if not callable(prune_proportion) and not isinstance(prune_proportion, list):
            prune_proportion = float(prune_proportion)  # Avalanche would call an int
        if not 0 <= post_prune_share <= 1:
            raise TrainingError(
                "expected post_prune_share as a share from 0 to 1, got "
                f"{post_prune_share}"
            )
        super().__init__(1, prune_proportion)
        if not callable(prune_proportion):  # Avalanche's lambda does not pickle
            self.prune_proportion = partial(_of_task, prune_proportion)
        self.post_prune_share = post_prune_share

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Divide the epochs.

        :raises TrainingError: when the model cannot be pruned or one epoch is all
            there is.
        """
        epochs = strategy.train_epochs
        if not isinstance(strategy.model, PackNetModule):
            raise TrainingError(
                f"PackNet cannot prune a {type(strategy.model).__name__}: set "
                "[model] packnet = true"
            )
        if epochs < 2:
            raise TrainingError(
                "PackNet needs an epoch before pruning and one after it, got "
                f"{epochs} in all: raise [training] epochs"
            )
        wanted = round(self.post_prune_share * epochs)
        self.post_prune_epochs = min(max(wanted, 1), epochs - 1)
        super().before_training(strategy, *args, **kwargs)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Forget the optimizer's moments: they are those of another subset.

        :raises TrainingError: when a list of proportions is too short, told before the
            first experience of the stream.
        """
        # joint training learns the whole stream in one call
        joint = isinstance(strategy, JointTraining)
        stream = [] if joint else getattr(strategy.experience, "origin_stream", [])
        current = strategy.clock.train_exp_counter
        for experience in range(max(current + 1, len(stream))):
            try:
                self.prune_proportion(experience)
            except IndexError:
                raise TrainingError(
                    "prune_proportion lists fewer shares than there are experiences: "
                    f"there is none for experience {experience}; give one each, or "
                    "one number for all"
                ) from None
        strategy.optimizer.state.clear()


def _of_task(proportion: float | list[float], task: int) -> float:
    return proportion[task] if isinstance(proportion, list) else proportion
