"""The density of Gaussian mixtures, fast on a processor."""

from __future__ import annotations

import torch
from torch import Tensor

from avalanche_ad.models.gaussians.algebra import log_constants, squared_mahalanobis

__all__ = ["mixture_log_likelihood"]

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
    constants = log_constants(log_weights, precision_roots)[..., None]
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
