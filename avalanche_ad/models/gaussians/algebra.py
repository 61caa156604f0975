"""Densities of Gaussians: pure functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avalanche_ad.errors import TrainingError

__all__ = [
    "component_log_likelihood",
    "log_constants",
    "precision_roots",
    "squared_mahalanobis",
]

_ROWS = 2048


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
    constants = log_constants(log_weights, precision_roots)
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
            for offset, root in zip(offsets, precision_roots)
        ]
    )


def log_constants(log_weights: Tensor, precision_roots: Tensor) -> Tensor:
    """Return log w + log|R| − D/2 log 2π of every Gaussian.

    :param log_weights: log w (...).
    :param precision_roots: R (..., D, D), triangular.
    """
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
