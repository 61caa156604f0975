"""Two densities that each say how normal a position is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avalanche_ad.models.scores.score import Score

__all__ = ["ProductOfExperts"]


class ProductOfExperts(Score):
    """The mean of two log-likelihoods: one that knows the place, one that does not.

    The density of a place finds what is not where it belongs, where parts lie still;
    one that is the same anywhere finds what belongs nowhere, where they do not. With
    position calibration each is standardised per position by training normals before.

    The product of densities, renormalised, is a product of experts: Hinton, "Training
    Products of Experts by Minimizing Contrastive Divergence", Neural Computation 2002,
    Eq. 1.

    >>> import torch
    >>> one = torch.ones(1, 2, 2)
    >>> maps = {"likelihood": 2 * one, "anywhere": 4 * one}
    >>> float(ProductOfExperts().combine(maps).max())
    3.0
    """

    name = "product_of_experts"
    maps = ("likelihood", "anywhere")

    def combine(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return ½ (likelihood + anywhere), (N, H, W)."""
        return (maps["likelihood"] + maps["anywhere"]) / 2
