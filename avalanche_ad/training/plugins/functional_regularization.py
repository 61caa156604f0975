"""Keep the latents of earlier categories' samples in place (HCL-FR)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.registry.options import Count
from avalanche_ad.training.plugins.flow_rehearsal import (
    FlowRehearsalPlugin,
    LevelSamples,
    sample_pools,
)

__all__ = ["FunctionalRegularizationPlugin", "latent_drift"]


def latent_drift(model: FlowModel, index: int, samples: LevelSamples) -> Tensor:
    """Return mean ‖f(x; position) − z‖² / D of one level.

    :param model: the flow-GMM with the current flow f.
    :param index: level.
    :param samples: features x and the latents z they had.
    :return: a scalar.
    """
    z, _ = model.flows[index](samples.x, model.condition(index, samples.positions))
    drift: Tensor = (z - samples.z).square().mean()
    return drift


class FunctionalRegularizationPlugin(FlowRehearsalPlugin[list[LevelSamples]]):
    """Penalise that the flow moves samples of the categories learned before.

    With f' the flow before the experience, x̃ = f'⁻¹(z) and z ~ N(μ_c, I) even over
    the categories c learned,

        L = L(x, y) + α · Σ_levels mean ‖f(x̃) − f'(x̃)‖² / D.

    f'(x̃) is the z that was drawn. HCL does not divide by D; here α so counts in the
    units of HGAD's likelihood terms, whatever the width of the features. Only the flow
    is held, and only where samples fall: the mixtures, old centres included, go on
    learning.

    :param alpha: α.
    :param batch_size: samples (single positions) per level and step.
    :param pool_size: samples drawn per level and experience, see
        :class:`FlowRehearsalPlugin`.

    Source: Kirichenko et al., "Task-agnostic Continual Learning with Hybrid
    Probabilistic Models", arXiv 2106.12772, the variant HCL-FR, whose regulariser is
    E ‖f_θ(x̃) − f_θ'(x̃)‖².

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> model.add_categories([0, 1])
    >>> plugin = FunctionalRegularizationPlugin(pool_size=64, batch_size=8)
    >>> pool = plugin.draw_pool(model, [0, 1])
    >>> loss = plugin.rehearsal_loss(SimpleNamespace(model=model), pool)
    >>> round(loss.item(), 3)  # the flow has not moved yet
    0.0
    """

    needs_positions = True

    def __init__(
        self, alpha: float = 100.0, batch_size: Count = 512, pool_size: Count = 16384
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.batch_size = batch_size
        self.pool_size = pool_size

    def draw_pool(self, model: FlowModel, categories: list[int]) -> list[LevelSamples]:
        """Draw latents, their features and their positions."""
        return sample_pools(model, categories, self.pool_size)

    def rehearsal_loss(self, strategy: Any, pool: list[LevelSamples]) -> Tensor:
        """Return α times the drift of a minibatch of the pool."""
        drifts = [
            latent_drift(strategy.model, index, samples.draw(self.batch_size))
            for index, samples in enumerate(pool)
        ]
        return self.alpha * torch.stack(drifts).sum()
