"""Leave HGAD's inner mixture out of the loss in the first epochs."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

__all__ = ["IntraClassWarmupPlugin"]


class IntraClassWarmupPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Train with the inter-class losses alone in the first epochs of an experience.

    Sets ``intra`` of the strategy's
    :class:`~avalanche_ad.models.hgad.loss.FlowGMMLoss`.

    :param epochs: epochs without L_gi and L_z, HGAD's 2.

    Source: Yao et al., ECCV 2024, released code.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> from avalanche_ad import FlowGMMLoss
    >>> clock = SimpleNamespace(train_exp_epochs=0)
    >>> strategy = SimpleNamespace(
    ...     clock=clock, train_epochs=10, _criterion=FlowGMMLoss()
    ... )
    >>> for clock.train_exp_epochs in range(3):
    ...     IntraClassWarmupPlugin(epochs=2).before_training_epoch(strategy)
    ...     print(strategy._criterion.intra)
    False
    False
    True
    """

    def __init__(self, epochs: int = 2) -> None:
        super().__init__()
        self.epochs = epochs

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Switch the inner mixture off or on."""
        epoch = strategy.clock.train_exp_epochs
        strategy._criterion.intra = epoch >= min(self.epochs, strategy.train_epochs - 1)
