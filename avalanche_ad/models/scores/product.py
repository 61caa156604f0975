"""HGAD's final score."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avalanche_ad.models.scores.score import Score

__all__ = ["Product"]


class Product(Score):
    """The product of the uncertainty and the likelihood, position by position.

    Source: Yao et al., ECCV 2024, arXiv 2403.13349, Sec. 3.5.

    >>> import torch
    >>> one = torch.ones(1, 2, 2)
    >>> float(Product().combine({"uncertainty": 2 * one, "likelihood": 3 * one}).max())
    6.0
    """

    name = "product"
    maps = ("uncertainty", "likelihood")

    def combine(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Return uncertainty · likelihood, (N, H, W)."""
        return maps["uncertainty"] * maps["likelihood"]
