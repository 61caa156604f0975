"""What is kept of a covariance, and how its inverse is updated."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Covariance", "low_rank_plus_diagonal", "woodbury_update"]

Covariance = Literal["full", "diagonal", "low_rank"]
"""What is kept of a covariance."""


def low_rank_plus_diagonal(covariance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Approximate covariances by F Fᵀ + diag(v), their diagonals kept exactly.

    F holds the r leading eigenvectors times √(λ_i − σ²), σ² the mean of the other
    eigenvalues (probabilistic PCA: Tipping & Bishop, J. R. Stat. Soc. B 1999, Eq. 7),
    and v what is missing on the diagonal, which is never negative.

    :param covariance: (..., D, D).
    :param rank: r; 0 keeps the diagonal alone.
    :return: F (..., D, r) and v (..., D).
    """
    width = covariance.shape[-1]
    rank = min(rank, width)
    diagonal = covariance.diagonal(0, -2, -1)
    if not rank:
        return covariance.new_zeros(*covariance.shape[:-1], 0), diagonal.clone()
    values, vectors = torch.linalg.eigh(covariance)
    rest = values[..., : width - rank]
    floor = rest.mean(-1, keepdim=True) if rank < width else values[..., :1] * 0
    lengths = (values[..., width - rank :] - floor).clamp_min(0).sqrt()
    factor = vectors[..., width - rank :] * lengths[..., None, :]
    return factor, (diagonal - factor.square().sum(-1)).clamp_min(0)


def woodbury_update(
    precision: Tensor, log_det: Tensor, decay: float, factor: Tensor
) -> tuple[Tensor, Tensor]:
    """Return precision and log-determinant of the covariance a C + U Uᵀ.

    (aC + UUᵀ)⁻¹ = a⁻¹ [P − P U (aI + Uᵀ P U)⁻¹ Uᵀ P],
    log|aC + UUᵀ| = (D − n) log a + log|C| + log|aI + Uᵀ P U|: O(D² n) instead of O(D³).

    :param precision: P = C⁻¹ (D, D).
    :param log_det: log|C|.
    :param decay: a > 0.
    :param factor: U (D, n), n columns.

    Source: Pinto & Engel, "Scalable and Incremental Learning of Gaussian Mixture
    Models", arXiv 1701.03940, who take one column at a time.
    """
    projected = precision @ factor
    inner = factor.T @ projected
    inner.diagonal().add_(decay)
    root = torch.linalg.cholesky(inner)
    half = torch.linalg.solve_triangular(root, projected.T, upper=False)
    width, columns = factor.shape
    log_det = (
        log_det + (width - columns) * math.log(decay) + 2 * root.diagonal().log().sum()
    )
    return (precision - half.T @ half) / decay, log_det
