"""A Gaussian mixture learned in minibatches, from sufficient statistics alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import chi2
from sklearn.cluster import kmeans_plusplus
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians.category_mixtures import (
    component_log_likelihood,
    precision_roots,
    squared_mahalanobis,
)
from avalanche_ad.models.gaussians.moments import (
    Moments,
    low_rank_plus_diagonal,
    woodbury_update,
)
from avalanche_ad.models.loading import LoadsWhole

__all__ = ["Covariance", "IncrementalGMM"]

Covariance = Literal["full", "diagonal", "low_rank"]
Rows = Tensor | npt.NDArray[np.floating]

_REFRESH = 100  # minibatches after which updated precisions are computed anew


class IncrementalGMM(LoadsWhole):
    """A mixture of K Gaussians that learns from minibatches and keeps no sample.

    Every minibatch runs one E-step and replaces the sufficient statistics S (weights,
    means and covariances of the components) by (1 − γ_n) S + γ_n s, s those of the
    minibatch, merged exactly
    (:class:`~avalanche_ad.models.gaussians.moments.Moments`). With
    ``step_power`` α, γ_n = (n + n₀)^−α after n minibatches (stepwise EM: Cappé &
    Moulines, J. R. Stat. Soc. B 2009; Liang & Klein, NAACL 2009); without it γ_n is the
    minibatch's share of all rows so far, so a single Gaussian equals the fit to all
    rows at once.

    With ``novelty`` τ the mixture starts empty and makes a component, as wide as
    ``initial_scale``, of a row whose squared Mahalanobis distance to every component is
    χ²_{D, 1−τ} or more (IGMN: Engel & Heinen 2010), until it has ``components``. One
    that is older than ``minimal_age`` rows and has gathered less than ``minimal_mass``
    of them is pruned. In minibatches of one row this is the mixture of Pinto & Engel
    (arXiv 1701.03940), but for the covariance, which is the exact moment here: with the
    e* = x − μ_new of their recursion it can lose positive definiteness (with ω = ½ it
    subtracts ⅛ (x−μ)(x−μ)ᵀ). As theirs it never inverts a full covariance while
    minibatches are small (at most D/4 rows): precisions and log-determinants are
    updated, by as many columns at once as the minibatch has rows
    (:func:`~avalanche_ad.models.gaussians.moments.woodbury_update`).

    Densities are computed in log space, with Cholesky factors. In the manner of
    scikit-learn's mixtures: :meth:`partial_fit`, :meth:`score_samples`,
    :meth:`predict_proba`, :meth:`sample`.

    :param dimensions: D.
    :param components: K, at most so many with ``novelty``.
    :param covariance: ``"full"``, ``"diagonal"``, or ``"low_rank"``: rank-r and
        diagonal, the diagonal exact.
    :param rank: r of ``"low_rank"``.
    :param regularization: added to the covariances' diagonals, relative to the mean
        variance of the rows; with ``novelty`` the components' first width serves.
    :param step_power: α in (0.5, 1], ``None`` for exact averages.
    :param step_offset: n₀.
    :param novelty: τ in (0, 1), ``None`` for K components from the first minibatch on.
    :param initial_scale: standard deviation of a new component, relative to the rows'
        of the first minibatch.
    :param minimal_age: rows.
    :param minimal_mass: rows.
    :param seed: decides the first centres and what :meth:`sample` draws.
    :raises ValueError: for a value out of its range.
    """

    weight: Tensor
    mean: Tensor
    factor: Tensor
    diagonal: Tensor
    age: Tensor
    rows: Tensor
    batches: Tensor
    scale: Tensor

    def __init__(
        self,
        dimensions: int,
        components: int = 1,
        covariance: Covariance = "full",
        *,
        rank: int = 8,
        regularization: float = 1e-2,
        step_power: float | None = None,
        step_offset: float = 2.0,
        novelty: float | None = None,
        initial_scale: float = 1.0,
        minimal_age: float = 5.0,
        minimal_mass: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if covariance not in ("full", "diagonal", "low_rank"):
            raise ValueError(
                "expected covariance 'full', 'diagonal' or 'low_rank', "
                f"got {covariance!r}"
            )
        if step_power is not None and not 0.5 < step_power <= 1:
            raise ValueError(f"expected step_power in (0.5, 1], got {step_power}")
        if novelty is not None and not 0 < novelty < 1:
            raise ValueError(f"expected novelty in (0, 1), got {novelty}")
        if dimensions < 1 or components < 1:
            raise ValueError(
                "expected at least one dimension and one component, got "
                f"{dimensions} and {components}"
            )
        self.dimensions = dimensions
        self.components = components
        self.covariance: Covariance = covariance
        self.rank = {"full": dimensions, "diagonal": 0, "low_rank": rank}[covariance]
        self.regularization = regularization
        self.step_power = step_power
        self.step_offset = step_offset
        self.novelty = novelty
        self.initial_scale = initial_scale
        self.minimal_age = minimal_age
        self.minimal_mass = minimal_mass
        self.seed = seed
        empty = torch.zeros(0, dimensions)
        self.register_buffer("weight", torch.zeros(0))
        self.register_buffer("mean", empty)
        # the covariance: itself when full, else F and the diagonal that F Fᵀ lacks
        self.register_buffer("factor", empty[:, :, None].expand(0, -1, self._columns))
        self.register_buffer(
            "diagonal", empty if covariance != "full" else empty[:, :0]
        )
        self.register_buffer("age", torch.zeros(0))
        self.register_buffer("rows", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("scale", torch.ones(()))
        self._roots: Tensor | None = None
        self._updated: tuple[Tensor, Tensor] | None = None  # precisions, log|C|

    @property
    def _columns(self) -> int:
        return min(self.rank, self.dimensions)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return (
            f"dimensions={self.dimensions}, components={len(self.weight)} of "
            f"{self.components}, covariance={self.covariance!r}"
        )

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
        if self.novelty is None:
            ridge = self.regularization * self.scale.square()
            covariance = covariance + ridge * torch.eye(self.dimensions).to(covariance)
        return Moments(found.weight / found.weight.sum(), found.mean, covariance)

    def _dense(self) -> Tensor:
        if self.covariance == "full":
            return self.factor
        low_rank = self.factor @ self.factor.transpose(-1, -2)
        return low_rank + torch.diag_embed(self.diagonal)

    def _store(self, moments: Moments) -> None:
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

    # Learning -------------------------------------------------------------------

    @torch.no_grad()
    def partial_fit(self, x: Rows, y: object = None) -> IncrementalGMM:
        """Learn from a minibatch.

        :param x: (N, D).
        :param y: ignored, as in scikit-learn.
        :return: itself.
        :raises ValueError: for another shape or values that are not finite.
        """
        x = self._rows(x)
        if not len(x):
            return self
        if self.novelty is not None:
            self._grow(x)
            return self
        if not len(self.weight):
            self._start(x)
            return self
        found = Moments.of(x, self.predict_proba(x) / len(x))
        share = len(x) / float(self.rows + len(x))
        if self.step_power is not None:
            step = int(self.batches) + self.step_offset
            share = step**-self.step_power
        self.rows += len(x)
        self.batches += 1
        old = self.moments
        old = old.scaled((1 - share) / old.weight.sum())
        merged = old.merged(found.scaled(share)).scaled(self.rows)
        self._store(merged)
        self._set_scale(merged)
        return self

    @torch.no_grad()
    def start(self, moments: Moments) -> IncrementalGMM:
        """Begin with given components, as if their rows had come in one minibatch.

        :param moments: weights in rows, means and covariances.
        :return: itself.
        """
        self._store(moments)
        self.rows = moments.weight.sum()
        self.age = torch.full_like(moments.weight, float(self.rows))
        self.batches = torch.ones_like(self.batches)
        self._set_scale(moments)
        return self

    def _start(self, x: Tensor) -> None:
        """Place the components by k-means++ and give each its nearest rows."""
        count = min(self.components, len(x))
        centers, _ = kmeans_plusplus(
            x.double().cpu().numpy(), count, random_state=self.seed
        )
        centers = torch.as_tensor(centers).to(x)
        for _ in range(10):
            nearest = torch.cdist(x, centers).argmin(1)
            shares = nn.functional.one_hot(nearest, count).to(x)
            own = shares.sum(0)[:, None]
            centers = torch.where(own > 0, shares.T @ x / own.clamp_min(1), centers)
        found = Moments.of(x, shares)
        # a component of few rows has too narrow a covariance: it shares that of all
        inner = torch.einsum("k,kij->ij", found.weight / len(x), found.covariance)
        trust = (found.weight / (found.weight + self.dimensions))[:, None, None]
        covariance = trust * found.covariance + (1 - trust) * inner
        moments = Moments(found.weight.clamp_min(1e-3), centers, covariance)
        self._store(moments)
        self.age = x.new_full((count,), float(len(x)))
        self.rows += len(x)
        self.batches += 1
        self._set_scale(moments)

    def _set_scale(self, moments: Moments) -> None:
        variance = moments.pooled().covariance[0].diagonal().mean()
        self.scale = variance.clamp_min(1e-12).sqrt()
        self._roots = self._updated = None

    def _grow(self, x: Tensor) -> None:
        """Learn by IGMN's rules, all of a minibatch's rows at once."""
        assert self.novelty is not None
        if not len(self.weight):
            deviation = x.std(0).mean() if len(x) > 1 else x.new_ones(())
            self.scale = deviation.clamp_min(1e-6)
        limit = float(chi2.ppf(1 - self.novelty, self.dimensions))
        start = (self.initial_scale * self.scale).square()
        fresh = torch.eye(self.dimensions).to(x)[None] * start
        nearest = self._distances(x).amin(1)
        seeds: list[int] = []
        while len(self.weight) + len(seeds) < self.components:
            row = int(nearest.argmax())
            if nearest[row] < limit:
                break
            seeds.append(row)
            gaps = (x - x[row]).square().sum(1) / start
            nearest = nearest.minimum(gaps)
        if seeds:
            widths = fresh.expand(len(seeds), -1, -1)
            new = Moments(x.new_ones(len(seeds)), x[seeds], widths)
            self._store(Moments.concatenated([self.moments, new]))
            self.age = torch.cat([self.age, x.new_ones(len(seeds))])
        fast = self.covariance == "full" and 4 * len(x) <= self.dimensions
        rest = torch.ones(len(x), dtype=torch.bool, device=x.device)
        rest[seeds] = False
        if rest.any():
            responsibilities = self.predict_proba(x[rest])
            old = self.moments
            merged = old.merged(Moments.of(x[rest], responsibilities))
            updated = None
            if fast and int(self.batches) % _REFRESH:
                updated = self._followed(old, merged, x[rest], responsibilities)
            self._store(merged)
            self._updated = updated
            self.age = self.age + float(rest.sum())
        self.rows += len(x)
        self.batches += 1
        keep = (self.age <= self.minimal_age) | (self.weight >= self.minimal_mass)
        if not keep.all() and keep.any():
            updated = self._updated
            self._store(self.moments[keep])
            if updated is not None:
                self._updated = updated[0][keep], updated[1][keep]
            self.age = self.age[keep]

    def _followed(
        self, old: Moments, merged: Moments, x: Tensor, responsibilities: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return precisions and log-determinants after a minibatch.

        C' = a C + U Uᵀ with a = w/w' and the columns √(r_i/w') (x_i − m') and
        √a (m − m') of U.
        """
        found = []
        for k, (precision, log_det) in enumerate(zip(*self._precisions(), strict=True)):
            decay = float(old.weight[k] / merged.weight[k])
            shares = (responsibilities[:, k] / merged.weight[k]).sqrt()
            columns = shares[:, None] * (x - merged.mean[k])
            jump = decay**0.5 * (old.mean[k] - merged.mean[k])
            factor = torch.cat([columns, jump[None]]).T.double()
            found.append(woodbury_update(precision, log_det, decay, factor))
        precisions, log_dets = zip(*found, strict=True)
        return torch.stack(precisions), torch.stack(log_dets)

    def merge(self, other: IncrementalGMM) -> IncrementalGMM:
        """Take over another mixture's components, as if both had seen all rows.

        :param other: a mixture of the same dimensions; it stays as it is.
        :return: itself; with more components than ``components`` allows the most alike
            are merged, see :meth:`reduce`.
        """
        if other.dimensions != self.dimensions:
            raise ValueError(
                f"expected a mixture of {self.dimensions} dimensions, "
                f"got {other.dimensions}"
            )
        both = Moments.concatenated([self.moments, other.moments])
        self._store(both)
        self.age = torch.cat([self.age, other.age.to(self.age)])
        self.rows = self.rows + other.rows.to(self.rows)
        self._set_scale(both)
        self.reduce(self.components)
        return self

    def reduce(self, components: int) -> None:
        """Merge the most alike pairs until so many components are left.

        The pair with the least w log|C| − w_i log|C_i| − w_j log|C_j| goes first: half
        of it bounds the Kullback-Leibler divergence that merging costs.

        Source: Runnalls, "Kullback-Leibler approach to Gaussian mixture reduction",
        IEEE Trans. Aerospace and Electronic Systems 2007, Eq. 21.
        """
        while len(self.weight) > max(components, 1):
            found = self.moments
            first, second = torch.triu_indices(len(found.weight), len(found.weight), 1)
            merged = found[first].merged(found[second])
            ridge = (
                1e-6 * self.scale.square() * torch.eye(self.dimensions).to(self.mean)
            )
            own = torch.logdet((found.covariance + ridge).double())
            cost = merged.weight * torch.logdet((merged.covariance + ridge).double())
            cost = cost - found.weight[first] * own[first]
            cost = cost - found.weight[second] * own[second]
            pair = int(cost.argmin())
            i, j = int(first[pair]), int(second[pair])
            rest = [k for k in range(len(found.weight)) if k not in (i, j)]
            self.age = torch.cat([self.age[rest], self.age[[i, j]].amax()[None]])
            self._store(Moments.concatenated([found[rest], merged[pair : pair + 1]]))

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
        return ("weight", "mean", "factor", "age", *rest)

    def state_accepted(self, state: Mapping[str, Tensor]) -> None:
        """Drop what was computed from the state before."""
        self._roots = self._updated = None

    def _apply(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003, ANN202
        """Drop what was computed from the state before it is moved or converted."""
        self._roots = self._updated = None
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
