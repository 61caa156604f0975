"""Densities and covariances of Gaussians: pure functions of tensors."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from avalanche_ad.errors import TrainingError

__all__ = [
    "Covariance",
    "component_log_likelihood",
    "low_rank_plus_diagonal",
    "mixture_log_likelihood",
    "precision_roots",
    "squared_mahalanobis",
    "woodbury_update",
]

Covariance = Literal["full", "diagonal", "low_rank"]
"""What is kept of a covariance."""

_ROWS = 2048
_TRIANGLE_ROWS, _TRIANGLE_COLUMNS = 512, 32


def mixture_log_likelihood(
    x: Tensor, log_weights: Tensor, means: Tensor, precision_roots: Tensor
) -> Tensor:
    """Return log p(x|c) of full-covariance Gaussian mixtures.

    log p(x|c) = logsumexp_k [log w_ck + log|R_ck| − D/2 log 2π − ½|(x − m_ck) R_ck|²]

    :param x: (N, D).
    :param log_weights: log w, (C, K).
    :param means: m, (C, K, D).
    :param precision_roots: R, (C, K, D, D), upper triangular, covariance⁻¹ = R Rᵀ.
    :return: (N, C).
    """
    categories, components, _ = means.shape
    if not categories:
        return x.new_zeros(len(x), 0)
    constants = _log_constants(log_weights, precision_roots)[..., None]
    if not torch.is_grad_enabled():
        return torch.stack(
            [
                torch.logsumexp(constant - 0.5 * _triangular_mahalanobis(x, *one), 0)
                for constant, *one in zip(
                    constants, means, precision_roots, strict=True
                )
            ],
            1,
        )
    flat = means.flatten(0, 1), precision_roots.flatten(0, 1)
    outputs = []
    # pieces that stay in the processor's cache: less than half the time
    for rows in torch.split(x, _ROWS):
        squared = squared_mahalanobis(rows, *flat).view(categories, components, -1)
        outputs.append(torch.logsumexp(constants - 0.5 * squared, 1).T)
    return torch.cat(outputs)


def component_log_likelihood(
    x: Tensor, log_weights: Tensor, means: Tensor, precision_roots: Tensor
) -> Tensor:
    """Return log w_k + log N(x | m_k, (R_k R_kᵀ)⁻¹).

    :param x: (N, D).
    :param log_weights: log w (K,).
    :param means: m (K, D).
    :param precision_roots: R (K, D, D), triangular.
    :return: (N, K).
    """
    constants = _log_constants(log_weights, precision_roots)
    return torch.cat(
        [
            constants - 0.5 * squared_mahalanobis(rows, means, precision_roots).T
            for rows in torch.split(x, _ROWS)
        ]
    )


def squared_mahalanobis(x: Tensor, means: Tensor, precision_roots: Tensor) -> Tensor:
    """Return |(x − m) R|² to every Gaussian.

    :param x: (N, D).
    :param means: m (M, D).
    :param precision_roots: R (M, D, D), covariance⁻¹ = R Rᵀ.
    :return: (M, N).
    """
    offsets = -(means[:, None] @ precision_roots)
    return torch.stack(
        [
            torch.addmm(offset, x, root).square_().sum(1)
            for offset, root in zip(offsets, precision_roots, strict=True)
        ]
    )


def _triangular_mahalanobis(
    x: Tensor, means: Tensor, precision_roots: Tensor
) -> Tensor:
    """Return |(x − m) R|² to every Gaussian, R upper triangular.

    As :func:`squared_mahalanobis`, in two thirds of the time: only what lies on or
    above the diagonal's blocks is multiplied by, and all Gaussians in one product.

    :param x: (N, D).
    :param means: m (M, D).
    :param precision_roots: R (M, D, D), upper triangular.
    :return: (M, N).
    """
    count, width = means.shape
    offsets = -(means[:, None] @ precision_roots)[:, 0]
    blocks = []
    for first in range(0, width, _TRIANGLE_COLUMNS):
        last = min(first + _TRIANGLE_COLUMNS, width)
        block = precision_roots[:, :last, first:last].transpose(0, 1)
        blocks.append((offsets[:, first:last].flatten(), block.flatten(1)))
    parts = []
    for rows in torch.split(x, _TRIANGLE_ROWS):
        squared = rows.new_zeros(len(rows), count)
        for offset, block in blocks:
            found = torch.addmm(offset, rows[:, : len(block)], block)
            squared += found.square_().view(len(rows), count, -1).sum(2)
        parts.append(squared)
    return torch.cat(parts).T


def _log_constants(log_weights: Tensor, precision_roots: Tensor) -> Tensor:
    """Return log w + log|R| − D/2 log 2π of every Gaussian."""
    log_det = precision_roots.diagonal(0, -2, -1).log().sum(-1)
    width = precision_roots.shape[-1]
    return log_weights + log_det - 0.5 * width * math.log(2 * math.pi)


def precision_roots(covariance: Tensor) -> Tensor:
    """Return R (K, D, D), upper triangular, covariance⁻¹ = R Rᵀ.

    :raises TrainingError: when a covariance is not positive definite.
    """
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise TrainingError(
            "the covariance of a mixture is not positive definite: training has "
            "diverged, or there were too few samples; lower the learning rate "
            "([training] lr) or take more samples"
        )
    eye = torch.eye(covariance.shape[-1]).to(lower)
    inverse: Tensor = torch.linalg.solve_triangular(
        lower, eye.expand_as(lower), upper=False
    )
    return inverse.transpose(-1, -2)


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
