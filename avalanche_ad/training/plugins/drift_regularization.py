"""Keep the flow in place where statistics say that old categories lie."""

from __future__ import annotations

from typing import Any

import torch

from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.registry.options import Count
from avalanche_ad.training.plugins.flow_rehearsal import LevelSamples, even_categories
from avalanche_ad.training.plugins.functional_regularization import (
    FunctionalRegularizationPlugin,
)
from avalanche_ad.training.plugins.statistics_keeper import StatisticsKeeper

__all__ = ["DriftRegularizationPlugin"]


class DriftRegularizationPlugin(StatisticsKeeper, FunctionalRegularizationPlugin):
    """Penalise that the flow moves samples of earlier categories' feature statistics.

    With f' the flow before the experience and x̃ drawn from the statistics of the
    frozen features, even over the categories learned and random in position,

        L = L(x, y) + α · Σ_levels mean ‖f(x̃) − f'(x̃)‖² / D.

    HCL's functional regularisation draws x̃ by inverting f'; an error there is what the
    next experience starts from. Statistics of frozen features do not drift.

    :param alpha: α.
    :param batch_size: samples (single positions) per level and step.
    :param pool_size: samples drawn per level and experience.
    :param options: see :class:`StatisticsKeeper`.

    Source of the penalty: Kirichenko et al., HCL-FR, arXiv 2106.12772.

    >>> DriftRegularizationPlugin(alpha=10.0, components=5).components
    5
    """

    def __init__(
        self,
        alpha: float = 100.0,
        batch_size: Count = 512,
        pool_size: Count = 16384,
        **options: Any,
    ) -> None:
        super().__init__(
            alpha=alpha, batch_size=batch_size, pool_size=pool_size, **options
        )

    def draw_pool(self, model: FlowModel, categories: list[int]) -> list[LevelSamples]:
        """Draw samples and note where the flow maps them now."""
        statistics = model.alignment.statistics
        assert statistics is not None
        y = even_categories(categories, self.pool_size)
        y = y.to(model.device)
        pools = []
        for index, (height, width, _) in enumerate(model.layout.levels):
            positions = torch.randint(height * width, (len(y),)).to(y.device)
            x, _ = statistics.sample_level(index, y, positions)
            z = model.latents_at(index, x, positions)
            pools.append(LevelSamples(z, x, positions, y))
        return pools
