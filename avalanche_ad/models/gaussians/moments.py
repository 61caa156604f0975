"""Weighted moments of samples: what Gaussians are fitted from, merged exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Weight, mean and covariance of K weighted samples.

    The covariance is taken around the sample's own mean and divided by its weight, so
    merging loses no digits to cancellation, as sums of squares would.

    :param weight: w (K,), the sum of the sample's weights.
    :param mean: m (K, D).
    :param covariance: C (K, D, D).

    >>> x = torch.tensor([[0.0], [2.0], [4.0]])
    >>> both = Moments.of(x[:2]).merged(Moments.of(x[2:]))
    >>> both.mean, both.weight
    (tensor([[2.]]), tensor([3.]))
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
