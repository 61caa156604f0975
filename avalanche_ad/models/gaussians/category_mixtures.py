"""Full-covariance Gaussian mixtures, one for each category, stacked."""

from __future__ import annotations

import math
import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians.moments import Moments
from avalanche_ad.models.loading import LoadsWhole

__all__ = [
    "CategoryBuffers",
    "CategoryMixtures",
    "component_log_likelihood",
    "drawn_rows",
    "fit_mixture",
    "mixture_log_likelihood",
    "precision_roots",
    "refitted",
    "squared_mahalanobis",
]

_ROWS = 2048
_LEAST_SHARE = 1e-6


class CategoryBuffers(LoadsWhole):
    """Buffers with a row a category; ``known`` (C,) says which categories have one."""

    known: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("known", torch.zeros(0, dtype=torch.bool))

    @property
    def category_tables(self) -> tuple[str, ...]:
        """Names of the buffers: each has a row a category."""
        return tuple(self._buffers)

    @property
    def categories(self) -> Tensor:
        """Indices of the categories that have a row, ascending."""
        return self.known.nonzero().flatten()

    def resize(self, num_categories: int) -> None:
        """Make room for categories that have nothing yet."""
        missing = num_categories - len(self.known)
        if missing > 0:
            for name, buffer in list(self.named_buffers(recurse=False)):
                blank = buffer.new_zeros(missing, *buffer.shape[1:])
                setattr(self, name, torch.cat([buffer, blank]))


class CategoryMixtures(CategoryBuffers):
    """A mixture of K full-covariance Gaussians for each category, in one space.

    Fitted, not trained: buffers alone.

    :param dimensions: D.
    :param components: K.

    Shapes: ``log_weights`` (C, K); ``means`` (C, K, D); ``precision_roots`` R
    (C, K, D, D), triangular, covariance⁻¹ = R Rᵀ.
    """

    log_weights: Tensor
    means: Tensor
    precision_roots: Tensor

    def __init__(self, dimensions: int, components: int) -> None:
        super().__init__()
        shape = (0, components)
        self.register_buffer("log_weights", torch.zeros(shape))
        self.register_buffer("means", torch.zeros(*shape, dimensions))
        roots = torch.zeros(*shape, dimensions, dimensions)
        self.register_buffer("precision_roots", roots)

    def put(
        self, category: int, weights: Tensor, means: Tensor, precision_roots: Tensor
    ) -> None:
        """Give a category its mixture.

        :param weights: (K,), summing to 1.
        :param means: (K, D).
        :param precision_roots: R (K, D, D).
        """
        self.resize(category + 1)
        self.log_weights[category] = weights.log().to(self.log_weights)
        self.means[category] = means.to(self.means)
        self.precision_roots[category] = precision_roots.to(self.precision_roots)
        self.known[category] = True

    def log_likelihood(self, x: Tensor, categories: Tensor) -> Tensor:
        """Return log p(x|c) of given categories.

        :param x: (N, D).
        :param categories: indices (C',) of categories that have a mixture.
        :return: (N, C').
        """
        return mixture_log_likelihood(
            x,
            self.log_weights[categories],
            self.means[categories],
            self.precision_roots[categories],
        )


def fit_mixture(
    x: Tensor,
    components: int,
    shrinkage: float,
    max_rows: int,
    generator: torch.Generator,
    seed: int,
    max_iter: int = 30,
) -> GaussianMixture:
    """Fit full-covariance Gaussians by EM, on some of the rows if there are many.

    :param x: (N, D).
    :param components: K.
    :param shrinkage: added to the covariances' diagonals, relative to the mean variance
        of the rows.
    :param max_rows: rows used at most.
    :param generator: draws them.
    :param seed: of the start of the EM.
    :param max_iter: steps of the EM at most, after k-means.
    :raises TrainingError: for fewer rows than Gaussians.
    """
    x = x.cpu()
    if len(x) < components:
        raise TrainingError(
            f"{components} Gaussians cannot be fitted to {len(x)} feature vectors of a "
            "category: take fewer components, or more or larger training images"
        )
    if len(x) > max_rows:
        x = x[drawn_rows(len(x), max_rows, generator)]
    mixture = GaussianMixture(
        components,
        covariance_type="full",
        reg_covar=max(shrinkage * float(x.var(0).mean()), 1e-6),
        max_iter=max_iter,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # a likelihood still creeping up by then is good enough here
        warnings.simplefilter("ignore", ConvergenceWarning)
        # in double it takes twice the time, to the same likelihood
        mixture.fit(x.float().numpy())
    return mixture


def refitted(x: Tensor, shares: Tensor, shrinkage: float) -> Moments:
    """Return a mixture after a step of the EM on some of the rows it was fitted to.

    Of one Gaussian that is the fit to these rows; of several it is the fit but for
    which Gaussian holds what, which stays, and so does what others made of each.

    :param x: (N, D).
    :param shares: which Gaussian each row is of, (N, K).
    :param shrinkage: see :func:`fit_mixture`.
    :return: weights that sum to 1, means and covariances, in double.
    """
    x, shares = x.double(), shares.double()
    parts = []
    for share in shares.T:
        # nearly all rows are nearly all of one Gaussian: most of the cost is of nothing
        rows = share > _LEAST_SHARE
        parts.append(Moments.of(x[rows], share[rows, None]))
    found = Moments.concatenated(parts)
    ridge = max(shrinkage * float(x.var(0).mean()), 1e-6)
    eye = torch.eye(x.shape[1]).to(x)
    weight = found.weight.clamp_min(1e-9)
    return Moments(weight / weight.sum(), found.mean, found.covariance + ridge * eye)


def drawn_rows(rows: int, most: int, generator: torch.Generator) -> Tensor:
    """Return which rows :func:`fit_mixture` takes: all, or some drawn.

    :param rows: how many there are.
    :param most: how many are taken at most.
    :param generator: draws them; untouched where all are taken.
    """
    if rows <= most:
        return torch.arange(rows)
    return torch.randperm(rows, generator=generator)[:most]


def mixture_log_likelihood(
    x: Tensor, log_weights: Tensor, means: Tensor, precision_roots: Tensor
) -> Tensor:
    """Return log p(x|c) of full-covariance Gaussian mixtures.

    log p(x|c) = logsumexp_k [log w_ck + log|R_ck| − D/2 log 2π − ½|(x − m_ck) R_ck|²]

    :param x: (N, D).
    :param log_weights: log w, (C, K).
    :param means: m, (C, K, D).
    :param precision_roots: R, (C, K, D, D), triangular, covariance⁻¹ = R Rᵀ.
    :return: (N, C).
    """
    categories, components, _ = means.shape
    if not categories:
        return x.new_zeros(len(x), 0)
    constants = _log_constants(log_weights, precision_roots)[..., None]
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
