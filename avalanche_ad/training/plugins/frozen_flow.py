"""Freeze the flow, or its blocks next to the data, once it has been learned."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import MIRPlugin
from torch import nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.training.plugins.requirements import required

__all__ = ["FrozenFlowPlugin", "bottom_blocks"]


def bottom_blocks(model: FlowModel, share: float) -> list[nn.Module]:
    """Return the coupling blocks of every level that lie next to the data.

    :param model: the flow-GMM, whose flows have B blocks each.
    :param share: which part of them, in [0, 1].
    :return: the first round(share · B) blocks of each level's flow, at least one of
        them unless the share is 0.
    """
    found: list[nn.Module] = []
    for flow in model.flows:
        blocks = list(flow.blocks)  # type: ignore[arg-type]
        count = max(1, round(share * len(blocks))) if share else 0
        found += blocks[:count]
    return found


class FrozenFlowPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Stop training the flow's bottom blocks after an experience.

    With f = f_B ∘ … ∘ f_1, the blocks f_1 … f_b, b = max(1, round(share·B)), of every
    level keep their values from then on. With ``share=1`` the latents of all data are
    fixed, and only the mixtures go on learning: new categories must be told apart in a
    latent space made for others.

    Frozen parameters get ``requires_grad=False`` and no gradient, so optimizers skip
    them, momentum and weight decay included, and so do Avalanche's Replay, EWC, LwF,
    GEM and A-GEM plugins and this project's SI plugin. Avalanche's MIR asks for the
    gradient of every parameter, so it is refused.

    :param share: part of the blocks to freeze, from the data side, in [0, 1].
    :param after_experience: index of the last experience that trains them; −1 freezes
        the initial, random flow.
    :raises TrainingError: when the share is not in [0, 1], the model has no flow, or
        there is an ``MIRPlugin`` beside it.

    Source: the bottom layers are frozen after Zheng et al., "Spurious Forgetting in
    Continual Learning of Language Models", ICLR 2025, arXiv 2501.13453, whose layers
    are a transformer's and whose "Freeze" leaves the first task's training alone.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> model.add_categories([0, 1])
    >>> clock = SimpleNamespace(train_exp_counter=1)
    >>> strategy = SimpleNamespace(model=model, plugins=[], clock=clock)
    >>> FrozenFlowPlugin(share=0.5).before_training_exp(strategy)
    >>> blocks = model.flows[0].blocks
    >>> [all(p.requires_grad for p in block.parameters()) for block in blocks]
    [False, True]
    """

    def __init__(self, share: float = 1.0, after_experience: int = 0) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise TrainingError(
                f"FrozenFlowPlugin: expected a share of the blocks in [0, 1], got "
                f"{share}: 0.5 freezes half of them"
            )
        self.share = share
        self.after_experience = after_experience

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Freeze, if the experience that was to train the flow lies behind."""
        # At once, and not when a long training has led up to it.
        if self.share and any(isinstance(p, MIRPlugin) for p in strategy.plugins):
            raise TrainingError(
                "FrozenFlowPlugin cannot go with MIRPlugin, which takes the gradient "
                "of every parameter, frozen ones too: use ReplayPlugin in its place"
            )
        # Not in after_training_exp: a resumed run comes through here in any case.
        if strategy.clock.train_exp_counter <= self.after_experience:
            return
        model = required(strategy.model, FlowModel, self, "freezes the flow of")
        for block in bottom_blocks(model, self.share):
            block.requires_grad_(False)
            for parameter in block.parameters():
                parameter.grad = None
