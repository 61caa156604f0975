"""A density of features, and what a flow told from noise says of them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avalanche_ad.models.scores.score import Score

__all__ = ["ProductWithContext"]


class ProductWithContext(Score):
    """The mean of a density's log-likelihood and a context flow's log-odds.

    With position calibration each is standardised per position by training normals
    before, without which they do not compare. Products of experts: Hinton, "Training
    Products of Experts by Minimizing Contrastive Divergence", Neural Computation 2002,
    Eq. 1.

    >>> import torch
    >>> one = torch.ones(1, 2, 2)
    >>> maps = {"likelihood": 2 * one, "context": 4 * one}
    >>> float(ProductWithContext().combine(maps).max())
    3.0
    """

    name = "product_with_context"
    maps = ("likelihood", "context")

    def combine(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return ½ (likelihood + context), (N, H, W)."""
        return (maps["likelihood"] + maps["context"]) / 2
