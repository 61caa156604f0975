"""Weighted moments of samples: what Gaussians are fitted from, merged exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments", "low_rank_plus_diagonal", "woodbury_update"]


@dataclass(frozen=True)
class Moments:
    """Weight, mean and covariance of K weighted samples.

    The covariance is taken around the sample's own mean and divided by its weight, so
    merging loses no digits to cancellation, as sums of squares would.

    :param weight: w (K,), the sum of the sample's weights.
    :param mean: m (K, D).
    :param covariance: C (K, D, D).
    """

    weight: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, x: Tensor, responsibilities: Tensor | None = None) -> Moments:
        """Return the moments of rows, shared out among K samples.

        w_k = Σ_i r_ik, m_k = Σ_i r_ik x_i / w_k,
        C_k = Σ_i r_ik (x_i − m_k)(x_i − m_k)ᵀ / w_k.

        :param x: (N, D).
        :param responsibilities: r (N, K); all 1, for a single sample, by default.
        """
        if responsibilities is None:
            responsibilities = x.new_ones(len(x), 1)
        weight = responsibilities.sum(0)
        shares = responsibilities / weight.clamp_min(torch.finfo(x.dtype).tiny)
        mean = shares.T @ x
        # a loop over K keeps memory at N·D instead of N·K·D
        covariance = torch.stack(
            [
                (share[:, None] * (x - center)).T @ (x - center)
                for share, center in zip(shares.T, mean, strict=True)
            ]
        )
        return cls(weight, mean, covariance)

    def scaled(self, factor: Tensor | float) -> Moments:
        """Return the same samples with all weights times a factor."""
        return Moments(self.weight * factor, self.mean, self.covariance)

    def to(self, like: Tensor) -> Moments:
        """Return the same in another tensor's type and on its device."""
        return Moments(
            self.weight.to(like), self.mean.to(like), self.covariance.to(like)
        )

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both samples together, component by component.

        With w = w₁ + w₂, a = w₁/w, b = w₂/w: m = a m₁ + b m₂ and
        C = a C₁ + b C₂ + ab (m₁ − m₂)(m₁ − m₂)ᵀ.

        Source: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for
        computing sample variances", 1979, Eq. 2.1.
        """
        weight = self.weight + other.weight
        b = other.weight / weight.clamp_min(torch.finfo(weight.dtype).tiny)
        a, gap = 1 - b, other.mean - self.mean
        spread = (a * b)[:, None, None] * gap[:, :, None] * gap[:, None, :]
        return Moments(
            weight,
            self.mean + b[:, None] * gap,
            a[:, None, None] * self.covariance
            + b[:, None, None] * other.covariance
            + spread,
        )

    def pooled(self) -> Moments:
        """Return the moments of all K samples taken as one (1, …)."""
        share = self.weight / self.weight.sum()
        mean = share @ self.mean
        gap = self.mean - mean
        inner = torch.einsum("k,kij->ij", share, self.covariance)
        covariance = inner + (share[:, None] * gap).T @ gap
        return Moments(self.weight.sum()[None], mean[None], covariance[None])

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> Moments:
        return Moments(self.weight[rows], self.mean[rows], self.covariance[rows])

    @staticmethod
    def concatenated(parts: Sequence[Moments]) -> Moments:
        """Return the samples of all parts side by side."""
        return Moments(
            torch.cat([part.weight for part in parts]),
            torch.cat([part.mean for part in parts]),
            torch.cat([part.covariance for part in parts]),
        )


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
