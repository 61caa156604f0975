"""Where a category's features lie, so that all categories' lie alike to a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from avalanche_ad.models.category_table import CategoryTable

__all__ = ["InputAlignment", "partly_whitening"]


def partly_whitening(
    rows: Tensor, power: float, shrinkage: float = 1e-2
) -> tuple[Tensor, Tensor]:
    """Return mean m and matrix A, such that (x − m) A is whitened in part.

    With the covariance Σ, v its mean variance, and Σ' = Σ/v + λ I:

        A = v^(−½) Σ'^(−power/2)

    Power 1 whitens, 0 leaves all but the scale; ½ halves the ratio of any two
    directions' deviations, on a logarithmic scale.

    :param rows: features (P, D).
    :param power: in [0, 1].
    :param shrinkage: λ.
    :return: (D,) and (D, D), symmetric.

    >>> x = torch.randn(500, 3) * torch.tensor([1.0, 5.0, 9.0])
    >>> mean, matrix = partly_whitening(x, 1.0, 0.0)
    >>> torch.allclose(torch.cov(((x - mean) @ matrix).T), torch.eye(3), atol=1e-3)
    True
    """
    mean = rows.mean(0)
    covariance = (rows - mean).T @ (rows - mean) / max(1, len(rows) - 1)
    variance = covariance.diagonal().mean().clamp(min=1e-12)
    relative = covariance / variance + shrinkage * torch.eye(len(mean)).to(covariance)
    values, vectors = torch.linalg.eigh(relative)
    scale = values.clamp(min=1e-6).pow(-power / 2)
    return mean, variance.rsqrt() * (vectors * scale) @ vectors.T


class InputAlignment(CategoryTable):
    """A mean and a matrix for each category's features of one level.

    What DeCoFlow (Im et al., arXiv 2606.26687) calls task-specific alignment, in closed
    form.

    :param channels: D.
    :param power: see :func:`partly_whitening`.

    Shapes: ``means`` (C, D); ``matrices`` (C, D, D).

    >>> alignment = InputAlignment(2, power=1.0)
    >>> alignment.fit(0, torch.randn(50, 2) + 7)
    >>> bool(alignment(torch.randn(8, 2) + 7, 0).mean() < 2)
    True
    """

    means: Tensor
    matrices: Tensor

    def __init__(self, channels: int, power: float) -> None:
        super().__init__()
        self.power = power
        self.add_table("means", channels)
        self.add_table("matrices", channels, channels)

    def fit(self, category: int, rows: Tensor) -> None:
        """Take a category's mean and matrix of its features (P, D)."""
        mean, matrix = partly_whitening(rows, self.power)
        self.set_rows(category, means=mean, matrices=matrix)

    def forward(self, x: Tensor, category: int) -> Tensor:
        """Return aligned features (…, D).

        :param x: (…, D).
        :param category: whose.
        """
        aligned: Tensor = (x - self.means[category]) @ self.matrices[category]
        return aligned
