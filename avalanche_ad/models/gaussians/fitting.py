"""Fit a mixture of full-covariance Gaussians to rows by EM."""

from __future__ import annotations

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians.moments import Moments

__all__ = ["drawn_rows", "fit_mixture", "refitted"]

_LEAST_SHARE = 1e-6


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
