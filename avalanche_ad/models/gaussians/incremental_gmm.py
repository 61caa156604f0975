"""A Gaussian mixture learned in minibatches, from sufficient statistics alone."""

from __future__ import annotations

import torch
from scipy.stats import chi2
from sklearn.cluster import kmeans_plusplus
from torch import Tensor, nn

from avalanche_ad.models.gaussians.covariances import Covariance, woodbury_update
from avalanche_ad.models.gaussians.mixture import CompactMixture, Rows
from avalanche_ad.models.gaussians.moments import Moments

__all__ = ["IncrementalGMM"]

_REFRESH = 100  # minibatches after which updated precisions are computed anew


class IncrementalGMM(CompactMixture):
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
    (:func:`~avalanche_ad.models.gaussians.covariances.woodbury_update`).

    As scikit-learn's mixtures it has :meth:`partial_fit`, and
    :class:`~avalanche_ad.models.gaussians.mixture.CompactMixture` the rest.

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

    >>> mixture = IncrementalGMM(dimensions=2)
    >>> x = torch.randn(300, 2) + 5
    >>> for minibatch in torch.split(x, 100):
    ...     mixture = mixture.partial_fit(minibatch)
    >>> bool((mixture.moments.mean - x.mean(0)).abs().max() < 1e-4)
    True
    """

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
        if step_power is not None and not 0.5 < step_power <= 1:
            raise ValueError(f"expected step_power in (0.5, 1], got {step_power}")
        if novelty is not None and not 0 < novelty < 1:
            raise ValueError(f"expected novelty in (0, 1), got {novelty}")
        if dimensions < 1 or components < 1:
            raise ValueError(
                "expected at least one dimension and one component, got "
                f"{dimensions} and {components}"
            )
        super().__init__(dimensions, covariance, rank, seed)
        self.components = components
        self.regularization = regularization
        self.step_power = step_power
        self.step_offset = step_offset
        self.novelty = novelty
        self.initial_scale = initial_scale
        self.minimal_age = minimal_age
        self.minimal_mass = minimal_mass
        self.register_buffer("age", torch.zeros(0))
        self.register_buffer("rows", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("scale", torch.ones(()))

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return (
            f"dimensions={self.dimensions}, components={len(self.weight)} of "
            f"{self.components}, covariance={self.covariance!r}"
        )

    @property
    def ridge(self) -> Tensor | None:
        """What is added to the covariances' diagonals, nothing with ``novelty``."""
        if self.novelty is not None:
            return None
        return self.regularization * self.scale.square()

    @property
    def category_tables(self) -> tuple[str, ...]:
        """Names of the tensors that have a row a component."""
        return (*super().category_tables, "age")

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
        self.store(merged)
        self._set_scale(merged)
        return self

    @torch.no_grad()
    def start(self, moments: Moments) -> IncrementalGMM:
        """Begin with given components, as if their rows had come in one minibatch.

        :param moments: weights in rows, means and covariances.
        :return: itself.
        """
        self.store(moments)
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
        self.store(moments)
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
            self.store(Moments.concatenated([self.moments, new]))
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
            self.store(merged)
            self._updated = updated
            self.age = self.age + float(rest.sum())
        self.rows += len(x)
        self.batches += 1
        keep = (self.age <= self.minimal_age) | (self.weight >= self.minimal_mass)
        if not keep.all() and keep.any():
            updated = self._updated
            self.store(self.moments[keep])
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
        self.store(both)
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
            self.store(Moments.concatenated([found[rest], merged[pair : pair + 1]]))
