"""One mixture of Gaussians in a compact form: what it takes, and its densities."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians.algebra import (
    component_log_likelihood,
    precision_roots,
    squared_mahalanobis,
)
from avalanche_ad.models.gaussians.covariances import (
    Covariance,
    low_rank_plus_diagonal,
)
from avalanche_ad.models.gaussians.moments import Moments
from avalanche_ad.models.loading import LoadsWhole

__all__ = ["CompactMixture", "Rows"]

Rows = Tensor | npt.NDArray[np.floating]
"""(N, D)."""


class CompactMixture(LoadsWhole):
    """A mixture of K Gaussians, kept as moments in a compact form.

    Densities are computed in log space, with Cholesky factors. In the manner of
    scikit-learn's mixtures: :meth:`score_samples`, :meth:`predict_proba`,
    :meth:`sample`.

    :param dimensions: D.
    :param covariance: ``"full"``, ``"diagonal"``, or ``"low_rank"``: rank-r and
        diagonal, the diagonal exact.
    :param rank: r of ``"low_rank"``.
    :param seed: decides what :meth:`sample` draws.
    :raises ValueError: for a value out of its range.

    Shapes: ``weight`` (K,) in rows; ``mean`` (K, D); ``factor``, the covariance
    (K, D, D) when full, else F (K, D, r) and ``diagonal`` (K, D), what F Fᵀ lacks.

    >>> mixture = CompactMixture(2)
    >>> mixture.store(Moments.of(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])))
    >>> mixture.score_samples(torch.zeros(1, 2))
    tensor([-1.2886])
    """

    weight: Tensor
    mean: Tensor
    factor: Tensor
    diagonal: Tensor

    def __init__(
        self,
        dimensions: int,
        covariance: Covariance = "full",
        rank: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if covariance not in ("full", "diagonal", "low_rank"):
            raise ValueError(
                "expected covariance 'full', 'diagonal' or 'low_rank', "
                f"got {covariance!r}"
            )
        self.dimensions = dimensions
        self.covariance: Covariance = covariance
        self.rank = {"full": dimensions, "diagonal": 0, "low_rank": rank}[covariance]
        self.seed = seed
        empty = torch.zeros(0, dimensions)
        columns = min(self.rank, dimensions)
        self.register_buffer("weight", torch.zeros(0))
        self.register_buffer("mean", empty)
        self.register_buffer("factor", empty[:, :, None].expand(0, -1, columns))
        self.register_buffer(
            "diagonal", empty if covariance != "full" else empty[:, :0]
        )
        self._roots: Tensor | None = None
        self._updated: tuple[Tensor, Tensor] | None = None  # precisions, log|C|

    # Parameters -----------------------------------------------------------------

    @property
    def moments(self) -> Moments:
        """The sufficient statistics, weights in rows."""
        return Moments(self.weight, self.mean, self._dense())

    @property
    def parameters_(self) -> Moments:
        """Weights that sum to 1, means and regularised covariances."""
        found = self.moments
        covariance = found.covariance
        ridge = self.ridge
        if ridge is not None:
            covariance = covariance + ridge * torch.eye(self.dimensions).to(covariance)
        return Moments(found.weight / found.weight.sum(), found.mean, covariance)

    @property
    def ridge(self) -> Tensor | None:
        """What is added to the covariances' diagonals, here nothing."""
        return None

    def _dense(self) -> Tensor:
        if self.covariance == "full":
            return self.factor
        low_rank = self.factor @ self.factor.transpose(-1, -2)
        return low_rank + torch.diag_embed(self.diagonal)

    def store(self, moments: Moments) -> None:
        """Take moments in the place of those there are, in the form that is kept.

        :param moments: weights in rows, means (K, D) and covariances (K, D, D).
        """
        self.weight, self.mean = moments.weight, moments.mean
        if self.covariance == "full":
            self.factor = moments.covariance
        else:
            self.factor, self.diagonal = low_rank_plus_diagonal(
                moments.covariance, self.rank
            )
        self._roots = self._updated = None

    @property
    def precision_roots(self) -> Tensor:
        """Return R (K, D, D), upper triangular, covariance⁻¹ = R Rᵀ."""
        if self._roots is None:
            covariance = self.parameters_.covariance.double()
            self._roots = precision_roots(covariance).to(self.mean)
        return self._roots

    def _precisions(self) -> tuple[Tensor, Tensor]:
        """Return covariance⁻¹ (K, D, D) and log|covariance| (K,), in double."""
        if self._updated is None:
            roots = precision_roots(self.parameters_.covariance.double())
            log_det = -2 * roots.diagonal(0, -2, -1).log().sum(-1)
            self._updated = roots @ roots.transpose(-1, -2), log_det
        return self._updated

    # Densities ------------------------------------------------------------------

    def _rows(self, x: Rows) -> Tensor:
        rows = torch.as_tensor(x).to(self.mean)
        if rows.dim() != 2 or rows.shape[1] != self.dimensions:
            raise ValueError(
                f"expected rows of shape (N, {self.dimensions}), "
                f"got {tuple(rows.shape)}"
            )
        if not rows.isfinite().all():
            raise ValueError("expected finite values, got nan or infinity")
        return rows

    def _distances(self, x: Tensor) -> Tensor:
        """Return squared Mahalanobis distances (N, K); infinite without components."""
        if not len(self.weight):
            return x.new_full((len(x), 1), torch.inf)
        if self._updated is None:
            return squared_mahalanobis(x, self.mean, self.precision_roots).T
        gaps = (x[:, None] - self.mean).double()
        squared = torch.einsum("nki,kij,nkj->nk", gaps, self._updated[0], gaps)
        return squared.to(x)

    def component_log_likelihood(self, x: Rows) -> Tensor:
        """Return log π_k + log N(x | m_k, C_k), (N, K).

        :raises TrainingError: when nothing was fitted.
        """
        x = self._rows(x)
        if not len(self.weight):
            raise TrainingError("the mixture is empty: call partial_fit first")
        found = self.parameters_
        weights = found.weight.clamp_min(torch.finfo(x.dtype).tiny)
        if self._updated is not None:
            constant = self.dimensions * math.log(2 * math.pi) + self._updated[1]
            return weights.log() - 0.5 * (self._distances(x) + constant.to(x))
        return component_log_likelihood(
            x, weights.log(), found.mean, self.precision_roots
        )

    def score_samples(self, x: Rows) -> Tensor:
        """Return log p(x) of every row, (N,), in nats."""
        return torch.logsumexp(self.component_log_likelihood(x), 1)

    def score(self, x: Rows, y: object = None) -> float:
        """Return the mean log-likelihood of the rows."""
        return float(self.score_samples(x).mean())

    def predict_proba(self, x: Rows) -> Tensor:
        """Return the responsibilities p(k | x), (N, K)."""
        if len(self.weight) == 1:
            return self._rows(x).new_ones(len(x), 1)
        return self.component_log_likelihood(x).softmax(1)

    def predict(self, x: Rows) -> Tensor:
        """Return each row's most likely component, (N,)."""
        return self.component_log_likelihood(x).argmax(1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw rows (count, D).

        :param generator: source of the draws, on the CPU; of the seed by default.
        """
        if not len(self.weight):
            raise TrainingError("the mixture is empty: call partial_fit first")
        if generator is None:
            generator = torch.Generator().manual_seed(self.seed)
        found = self.parameters_
        drawn = torch.multinomial(
            found.weight.cpu(), count, replacement=True, generator=generator
        ).to(self.mean.device)
        noise = torch.randn(count, self.dimensions, generator=generator).to(self.mean)
        roots = torch.linalg.cholesky(found.covariance.double()).to(self.mean)
        rows = torch.empty_like(noise)
        for index in range(len(found.weight)):
            own = drawn == index
            rows[own] = found.mean[index] + noise[own] @ roots[index].T
        return rows

    # State ----------------------------------------------------------------------

    @property
    def category_tables(self) -> tuple[str, ...]:
        """Names of the tensors that have a row a component."""
        rest = () if self.covariance == "full" else ("diagonal",)
        return ("weight", "mean", "factor", *rest)

    def state_accepted(self, state: Mapping[str, Tensor]) -> None:
        """Drop what was computed from the state before."""
        self._roots = self._updated = None

    def _apply(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003, ANN202
        """Drop what was computed from the state before it is moved or converted."""
        self._roots = self._updated = None
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
