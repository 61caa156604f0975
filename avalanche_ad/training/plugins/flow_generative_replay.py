"""Generative replay from the flow-GMM itself (HCL-GR)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.registry.options import Count
from avalanche_ad.training.plugins.flow_rehearsal import (
    FlowRehearsalPlugin,
    even_categories,
)

__all__ = ["FlowGenerativeReplayPlugin"]

_CHUNK = 8  # images inverted at a time


class FlowGenerativeReplayPlugin(FlowRehearsalPlugin[tuple[Tensor, Tensor]]):
    """Add the training loss of images drawn from the model before the experience.

    With θ' the model before the experience, ỹ even over the categories learned,

        L = L(x, y; θ) + w · L(x̃, ỹ; θ),   x̃ = f'⁻¹(z), z ~ N(μ'_ỹ, I),

    L being the strategy's own criterion. HCL maximises log p(x̃ | ỹ; θ), w = 1; here
    HGAD's whole loss takes its place, on old samples as on new data. x̃ is as
    good as the model's density, which knows no dependence between positions: after few
    epochs it is far wider than the data.

    :param weight: w.
    :param batch_size: replayed images per step.
    :param pool_size: images drawn per experience, see :class:`FlowRehearsalPlugin`.

    Source: Kirichenko et al., "Task-agnostic Continual Learning with Hybrid
    Probabilistic Models", arXiv 2106.12772, the variant HCL-GR.

    >>> from avalanche_ad import FlowGMM
    >>> from avalanche_ad.features import FeatureLayout
    >>> model = FlowGMM(FeatureLayout(((4, 4, 8),)), couplings=2)
    >>> model.add_categories([0, 1])
    >>> x, y = FlowGenerativeReplayPlugin(pool_size=5).draw_pool(model, [0, 1])
    >>> x.shape, y.tolist()
    (torch.Size([5, 128]), [0, 1, 0, 1, 0])
    """

    def __init__(
        self, weight: float = 1.0, batch_size: Count = 8, pool_size: Count = 96
    ) -> None:
        super().__init__()
        self.weight = weight
        self.batch_size = batch_size
        self.pool_size = pool_size

    def draw_pool(
        self, model: FlowModel, categories: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Draw features and their categories."""
        y = even_categories(categories, self.pool_size).to(model.device)
        parts = [model.sample(part, inner=False) for part in torch.split(y, _CHUNK)]
        return torch.cat(parts), y

    def rehearsal_loss(
        self,
        strategy: Any,
        pool: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Return w times the loss of a minibatch of the pool."""
        x, y = pool
        rows = torch.randint(len(x), (self.batch_size,)).to(x.device)
        criterion = strategy._criterion
        # The report of terms is the new data's, not the rehearsal's.
        terms = getattr(criterion, "terms", None)
        loss: Tensor = criterion(strategy.model(x[rows]), y[rows])
        if hasattr(criterion, "terms"):
            criterion.terms = terms
        return self.weight * loss
