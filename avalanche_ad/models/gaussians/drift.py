"""How Gaussians move with a space that drifts: pure functions of latents."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["linear_drift", "moved_gaussians", "semantic_drift"]


def semantic_drift(means: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return how far means have drifted, estimated by latents nearby.

    Δm = Σ_i w_i (z'_i − z_i) / Σ_i w_i, w_i = exp(−‖z_i − m‖² / 2σ²), σ² the mean
    squared distance of the means to their nearest tenth of the latents, so that some
    are always near.

    :param means: (M, D).
    :param before: latents z of current data under the old flow, (N, D).
    :param after: latents z' of the same data under the new one, (N, D).
    :return: Δm (M, D).

    Source: Yu et al., "Semantic Drift Compensation for Class-Incremental Learning",
    CVPR 2020, arXiv 2004.00440, Eq. 9-11.
    """
    distance = torch.cdist(means, before).square()
    near = distance.kthvalue(max(1, len(before) // 10), dim=1).values
    weights = (-0.5 * distance / near.mean().clamp_min(1e-9)).softmax(1)
    return weights @ (after - before)


def linear_drift(
    before: Tensor, after: Tensor, ridge: float = 1e-3
) -> tuple[Tensor, Tensor]:
    """Return the affine map that takes old latents to new ones.

    W, b = argmin Σ_i ‖W z_i + b − z'_i‖² + λ ‖W − I‖², with λ the ridge times the
    latents' total variance: without data W stays the identity.

    :param before: z (N, D).
    :param after: z' (N, D).
    :param ridge: relative to the mean eigenvalue of the scatter of z.
    :return: W (D, D) and b (D,).

    Source: Gomez-Villa et al., "Exemplar-free Continual Representation Learning via
    Learnable Drift Compensation", ECCV 2024, arXiv 2407.08536, its linear projector,
    solved in closed form.
    """
    z, moved = before.double(), after.double()
    center, target = z.mean(0), moved.mean(0)
    z, moved = z - center, moved - target
    scatter = z.T @ z
    size = ridge * scatter.diagonal().mean().clamp_min(1e-12)
    eye = torch.eye(len(scatter)).to(scatter)
    w = torch.linalg.solve(scatter + size * eye, z.T @ moved + size * eye).T
    return w.to(before), (target - w @ center).to(before)


def moved_gaussians(
    means: Tensor, roots: Tensor, w: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Return Gaussians after an affine map of the space: m → Wm + b, C → W C Wᵀ.

    :param means: (..., D).
    :param roots: R (..., D, D), C⁻¹ = R Rᵀ.
    :param w: W (D, D), invertible.
    :param b: (D,).
    :return: the new means and roots, the roots upper triangular again.
    """
    # C'⁻¹ = W⁻ᵀ R Rᵀ W⁻¹; an RQ decomposition makes W⁻ᵀ R triangular again
    root = torch.linalg.solve(w.T.double(), roots.double())
    flipped = root.flip(-2).transpose(-1, -2)
    _, triangle = torch.linalg.qr(flipped)
    upper = triangle.transpose(-1, -2).flip((-1, -2))
    signs = upper.diagonal(0, -2, -1).sign()
    return means @ w.T + b, (upper * signs[..., None, :]).to(roots)
