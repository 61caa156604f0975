"""Keep what the flow generates from old latents (after Pomponi et al.)."""

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

__all__ = ["LatentPseudoRehearsalPlugin", "embedding_drift", "spread_within"]


def spread_within(samples: LevelSamples) -> float:
    """Return the variance of features within a category, averaged over both.

    :param samples: samples of one level, of one or more categories.
    """
    own = [
        samples.x[samples.categories == category].var(0, correction=0).mean()
        for category in sorted(set(samples.categories.tolist()))
    ]
    return float(torch.stack(own).mean())


def embedding_drift(model: FlowModel, index: int, samples: LevelSamples) -> Tensor:
    """Return mean ‖f⁻¹(z; position) − x‖² / D of one level.

    :param model: the flow-GMM with the current flow f.
    :param index: level.
    :param samples: latents z and the features x that they gave.
    :return: a scalar, in squared units of the features.
    """
    condition = model.condition(index, samples.positions)
    x = model.flows[index].inverse(samples.z, condition)  # type: ignore[operator]
    drift: Tensor = (x - samples.x).square().mean()
    return drift


Pool = tuple[LevelSamples, float]  # one level: samples and their spread


class LatentPseudoRehearsalPlugin(FlowRehearsalPlugin[list[Pool]]):
    """Penalise that the flow generates other embeddings for earlier categories.

    With f' the flow before the experience and z ~ N(μ_c, I) even over the categories
    c learned,

        L = L(x, y) + α · Σ_levels mean ‖f⁻¹(z) − f'⁻¹(z)‖² / (D s²),

    x̃ = f'⁻¹(z) being embeddings, features of the frozen backbone, and s² their variance
    within a category, so that α does not depend on their units.

    How it differs from the paper. There an encoder e and a classifier are trained; a
    flow g learns the encoder's embeddings, a decoder the images; images x̃ decoded from
    g⁻¹(u), u ~ N(0, I), hold the encoder by a distance between e(x̃) and the previous
    encoder's e'(x̃), and the flow is trained again, on new and pseudo-data. Here the
    encoder is frozen, so the first of these is zero, and what drifts is the flow. If
    the flow is taken for the encoder instead, with its inverse for the decoder,
    the regulariser is ‖f(x̃) − f'(x̃)‖, which is
    :class:`~avalanche_ad.training.plugins.FunctionalRegularizationPlugin`. What is
    left of its own, pseudo-rehearsal started in the latent space and a distance taken
    in the space of the embeddings, is this: the inverse maps are held together. To
    first order ‖∂f⁻¹/∂z · Δz‖² instead of ‖Δz‖²: directions in which the features
    hardly vary, where f stretches, count less.

    :param alpha: α.
    :param batch_size: samples (single positions) per level and step.
    :param pool_size: samples drawn per level and experience, see
        :class:`FlowRehearsalPlugin`.

    Source: after Pomponi, Scardapane and Uncini, "Pseudo-Rehearsal for Continual
    Learning with Normalizing Flows", arXiv 2007.02443, and its released code.

    >>> from types import SimpleNamespace  # in the place of a strategy
    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> model.add_categories([0, 1])
    >>> plugin = LatentPseudoRehearsalPlugin(pool_size=64, batch_size=8)
    >>> pool = plugin.draw_pool(model, [0, 1])
    >>> loss = plugin.rehearsal_loss(SimpleNamespace(model=model), pool)
    >>> round(loss.item(), 3)  # the flow has not moved yet
    0.0
    """

    needs_positions = True

    def __init__(
        self, alpha: float = 300.0, batch_size: Count = 512, pool_size: Count = 16384
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.batch_size = batch_size
        self.pool_size = pool_size

    def draw_pool(self, model: FlowModel, categories: list[int]) -> list[Pool]:
        """Draw latents, their features and positions, and measure their spread."""
        pools = sample_pools(model, categories, self.pool_size)
        return [(samples, spread_within(samples)) for samples in pools]

    def rehearsal_loss(self, strategy: Any, pool: list[Pool]) -> Tensor:
        """Return α times the relative drift of a minibatch of the pool."""
        drifts = [
            embedding_drift(strategy.model, index, samples.draw(self.batch_size))
            / spread
            for index, (samples, spread) in enumerate(pool)
        ]
        return self.alpha * torch.stack(drifts).sum()
