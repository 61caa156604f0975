"""How a mixture follows a flow that has moved: pure functions of latents."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from avalanche_ad.models.gaussians import (
    Moments,
    mixture_log_likelihood,
    precision_roots,
)

__all__ = [
    "ALIGNED_COVARIANCES",
    "AlignedCovariance",
    "aligned_mixture",
    "climbed_mixture",
    "grouped_moments",
    "kept_covariance",
    "pushed_moments",
]

AlignedCovariance = Literal["full", "diagonal", "spherical"]
ALIGNED_COVARIANCES: tuple[AlignedCovariance, ...] = get_args(AlignedCovariance)


def aligned_mixture(
    z: Tensor,
    component: Tensor,
    components: int,
    covariance: AlignedCovariance = "full",
    shrinkage: float = 1e-2,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit one Gaussian to each group of latents, see :func:`grouped_moments`.

    :param z: latents (N, D).
    :param component: the group of each, (N,).
    :param components: K.
    :param covariance: what is kept of C_k: all, its diagonal, or its mean variance.
    :param shrinkage: relative to the mean variance of all latents.
    :return: weights (K,), means (K, D) and roots R (K, D, D), upper triangular,
        C_k⁻¹ = R Rᵀ.
    """
    found = grouped_moments(z, component, components, shrinkage)
    kept = kept_covariance(found.covariance, covariance)
    return found.weight, found.mean, precision_roots(kept)


def grouped_moments(
    z: Tensor, component: Tensor, components: int, shrinkage: float = 1e-2
) -> Moments:
    """Return the moments of each group of latents, fit to be a Gaussian's.

    w_k = n_k / n, m_k = mean of the group, C_k its covariance, shrunk towards that of
    all groups as far as the group is too small to tell one (by n_k / (n_k + 2D)), and
    with ``shrinkage`` times the mean variance on the diagonal.

    :param z: latents (N, D).
    :param component: the group of each, (N,).
    :param components: K.
    :param shrinkage: relative to the mean variance of all latents.
    :return: in double; a group without a latent has next to no weight.
    """
    z = z.double()
    width = z.shape[1]
    shares = torch.nn.functional.one_hot(component, components).to(z)
    counts = shares.sum(0)
    overall = z.mean(0)
    means = torch.where(
        counts[:, None] > 0, shares.T @ z / counts.clamp_min(1)[:, None], overall
    )
    gaps = z - means[component]
    within = gaps.T @ gaps / len(z)
    ridge = shrinkage * z.var(0).mean().clamp_min(1e-9) * torch.eye(width).to(z)
    covariances = []
    for index in range(components):
        own = gaps[component == index]
        trust = len(own) / (len(own) + 2 * width)
        found = own.T @ own / max(len(own), 1)
        covariances.append(trust * found + (1 - trust) * within + ridge)
    weights = counts.clamp_min(1e-6) / counts.clamp_min(1e-6).sum()
    return Moments(weights, means, torch.stack(covariances))


def kept_covariance(full: Tensor, form: AlignedCovariance) -> Tensor:
    """Return what a form keeps of covariances: all, the diagonal, the mean variance.

    :param full: (K, D, D).
    :param form: which.
    :return: (K, D, D).
    """
    variances = full.diagonal(0, -2, -1)
    if form == "diagonal":
        return torch.diag_embed(variances)
    if form == "spherical":
        return torch.diag_embed(variances.mean(1, keepdim=True).expand_as(variances))
    if form != "full":
        raise ValueError(
            f"expected covariance as one of {', '.join(ALIGNED_COVARIANCES)}, got "
            f"{form!r}"
        )
    return full


def pushed_moments(
    gaussians: Moments, x: Tensor, z: Tensor, component: Tensor
) -> Moments:
    """Return the moments of Gaussians after a map, estimated by samples of them.

    With W_k the linear map that fits a component's samples best, by ridge regression
    around the map that fits all components', and e what it leaves,
    m'_k = z̄_k + W_k (m_k − x̄_k) and C'_k = W_k C_k W_kᵀ + cov_k(e). The Gaussians' own
    moments take the place of the samples' (a control variate), so that a map that is
    affine gives the exact result from D + K samples on, and only what bends is
    estimated. Ridge and cov_k(e), which is shrunk towards that of all samples, weigh a
    component's own n_k samples by about n_k / (n_k + 2D).

    :param gaussians: K Gaussians, their weights in any unit.
    :param x: samples of them (N, D).
    :param z: where the map takes the samples (N, D).
    :param component: which Gaussian each was drawn from (N,).
    :return: of the same weights, in double.
    """
    x, z = x.double(), z.double()
    count, width = len(gaussians.weight), x.shape[1]
    shares = torch.nn.functional.one_hot(component, count).to(x)
    counts = shares.sum(0)
    scale = 1 / counts.clamp_min(1)
    has = (counts > 0)[:, None]
    x_mean = torch.where(has, scale[:, None] * (shares.T @ x), x.mean(0))
    z_mean = torch.where(has, scale[:, None] * (shares.T @ z), z.mean(0))
    gaps, moved = x - x_mean[component], z - z_mean[component]
    scatter, eye = gaps.T @ gaps, torch.eye(width).to(x)
    variance = scatter.diagonal().mean().clamp_min(1e-12) / len(x)
    shared = torch.linalg.solve(
        scatter + 1e-9 * len(x) * variance * eye, gaps.T @ moved
    )
    rest = moved - gaps @ shared
    maps, bent = [], []
    for k in range(count):
        rows = component == k
        own = gaps[rows]
        gram = own.T @ own + 2 * width * variance * eye
        correction = torch.linalg.solve(gram, own.T @ rest[rows])
        left = rest[rows] - own @ correction
        maps.append(shared + correction)
        bent.append(left.T @ left * scale[k])
    overall = torch.einsum("k,kij->ij", counts / len(x), torch.stack(bent))
    trust = (counts / (counts + 2 * width))[:, None, None]
    w = torch.stack(maps)
    shift = (gaussians.mean.double() - x_mean)[:, None] @ w
    turned = w.transpose(1, 2) @ gaussians.covariance.double() @ w
    return Moments(
        gaussians.weight.double(),
        z_mean + shift[:, 0],
        turned + trust * torch.stack(bent) + (1 - trust) * overall,
    )


def climbed_mixture(
    z: Tensor,
    weights: Tensor,
    means: Tensor,
    roots: Tensor,
    *,
    steps: int,
    lr: float,
    batch_size: int = 2048,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move a mixture towards latents by gradient steps, the latents held.

    Each step is Adam's, on the mean of −log p(z) / D over a minibatch, in log w, m and
    R with the logarithm of its diagonal; an entry of R that is 0 stays so, and with it
    the form of the covariance.

    :param z: latents (N, D).
    :param weights: w (K,).
    :param means: m (K, D).
    :param roots: R (K, D, D), upper triangular, covariance⁻¹ = R Rᵀ.
    :param steps: how many.
    :param lr: learning rate of log w and R; that of m is lr times the root mean square
        of the latents around the mixture's mean, so that 1/lr steps reach them.
    :param batch_size: latents a step.
    :return: weights, means and roots.
    """
    gaps = z - weights.to(means) @ means
    scale = float(gaps.square().mean().sqrt().clamp_min(1e-6))
    logits = weights.clamp_min(1e-9).log().clone().requires_grad_()
    centers = (means / scale).clone().requires_grad_()
    diagonal = roots.diagonal(0, -2, -1).log().clone().requires_grad_()
    inner = roots.triu(1)
    shape = (inner != 0).to(inner)
    inner = inner.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits, centers, diagonal, inner], lr=lr)

    def root() -> Tensor:
        return torch.diag_embed(diagonal.exp()) + inner * shape

    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(z), (min(batch_size, len(z)),)).to(z.device)
            log_weights, placed = logits.log_softmax(0), centers * scale
            found = mixture_log_likelihood(
                z[rows].detach(), log_weights[None], placed[None], root()[None]
            )
            optimizer.zero_grad()
            (-found.mean() / z.shape[1]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return logits.softmax(0).detach(), (centers * scale).detach(), root().detach()
