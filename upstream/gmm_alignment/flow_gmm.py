################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

"""
A normalizing flow with a Gaussian of its latents for each class.
"""

from typing import Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche.models.gaussians import component_log_likelihood, precision_roots


class Coupling(nn.Module):
    """
    An affine coupling of Real NVP (Dinh et al., ICLR 2017, Eq. 7-8). It starts
    as the identity.
    """

    def __init__(self, size: int, hidden: int):
        """
        :param size: number of features.
        :param hidden: width of its network.
        """
        super().__init__()
        self.passive = size // 2
        active = size - self.passive
        self.layers = nn.Sequential(
            nn.Linear(self.passive, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * active),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        u, v = x[:, : self.passive], x[:, self.passive :]
        s, t = self.layers(u).chunk(2, 1)
        s = torch.tanh(s)
        return torch.cat([u, v * s.exp() + t], 1), s.sum(1)


class FlowGMM(nn.Module):
    """
    A normalizing flow with a Gaussian of its latents for each class.

    While it is trained, the classes' Gaussians are N(μ_c, I) with means that
    are trained too. :class:`avalanche.training.plugins.GMMAlignmentPlugin` gives
    classes a Gaussian of full covariance that fits what the flow is now; those
    are what it predicts with.

    The output is log p(x | c) / D for each class (N, C).

    It is what remains of HGAD (Yao et al., Hierarchical Gaussian Mixture
    Normalizing Flow Modeling for Unified Anomaly Detection, ECCV 2024) with one
    level, one centre a class and no positions.
    """

    def __init__(
        self, size: int, num_classes: int, couplings: int = 6, hidden: int = 64
    ):
        """
        :param size: number of features.
        :param num_classes: number of classes.
        :param couplings: number of couplings of the flow.
        :param hidden: width of their networks.
        """
        super().__init__()
        self.size = size
        self.flow = nn.ModuleList(Coupling(size, hidden) for _ in range(couplings))
        orders = [torch.randperm(size) for _ in range(couplings)]
        self.register_buffer("orders", torch.stack(orders))
        self.means = nn.Parameter(torch.randn(num_classes, size))
        self.register_buffer("aligned", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("aligned_means", torch.zeros(num_classes, size))
        roots = torch.eye(size).repeat(num_classes, 1, 1)
        self.register_buffer("aligned_roots", roots)

    def latents(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """
        Map features to latents.

        :param x: features (N, D).
        :return: latents (N, D), and log |det| of the flow there (N,).
        """
        log_det = x.new_zeros(len(x))
        for order, coupling in zip(self.orders, self.flow):
            x, share = coupling(x[:, order])
            log_det = log_det + share
        return x, log_det

    @torch.no_grad()
    def align(self, label: int, z: Tensor, shrinkage: float = 1e-2) -> None:
        """
        Fit a class's Gaussian to latents.

        :param label: the class.
        :param z: its latents (N, D), as the flow is now.
        :param shrinkage: added to the diagonal of the covariance, as a share of
            its mean.
        """
        mean = z.mean(0)
        covariance = (z - mean).T @ (z - mean) / len(z)
        extra = shrinkage * covariance.diagonal().mean().clamp(min=1e-6)
        covariance = covariance + extra * torch.eye(self.size).to(z)
        self.aligned[label] = True
        self.aligned_means[label] = mean
        self.aligned_roots[label] = precision_roots(covariance[None])[0]

    def forward(self, x: Tensor) -> Tensor:
        z, log_det = self.latents(x)
        aligned = not self.training and bool(self.aligned.any())
        if aligned:
            means, roots = self.aligned_means, self.aligned_roots
        else:
            means = self.means
            roots = torch.eye(self.size).to(z).expand(len(means), -1, -1)
        log_p = component_log_likelihood(z, z.new_zeros(len(means)), means, roots)
        if aligned:
            log_p = log_p.masked_fill(~self.aligned, -1e9)
        return (log_p + log_det[:, None]) / self.size


class FlowGMMLoss(nn.Module):
    """
    The criterion of :class:`FlowGMM`: −log p(x | y) / D, and the cross entropy
    of the classes.
    """

    def __init__(self, contrast: float = 1.0):
        """
        :param contrast: weight of the cross entropy.
        """
        super().__init__()
        self.contrast = contrast

    def forward(self, output: Tensor, y: Tensor) -> Tensor:
        likelihood = -output.gather(1, y[:, None]).mean()
        return likelihood + self.contrast * F.cross_entropy(output, y)


__all__ = ["FlowGMM", "FlowGMMLoss"]
