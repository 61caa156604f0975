"""What is trained for a category: its flows, and what tells features from defects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from avalanche_ad.models.context_flow.flow import ContextFlow
from avalanche_ad.models.context_flow.objectives import (
    Weights,
    contrast_loss,
    log_density,
    noised,
    noised_regions,
    tail_aware,
)
from avalanche_ad.models.evaluating import seeded

__all__ = ["CategoryNetworks", "surroundings", "with_surroundings"]


class CategoryNetworks(nn.Module):
    """One category's networks, of each level.

    A position is held to be normal, and not noise, with log-odds

        e^a · log p/D + b + head(z)

    by the flow z = f(x) and a network of its latents. The head sees what the flow's
    standard normal does not: the two are told from noise together, and the flow's own
    density stays part of the answer. It is held to be normal, and not painted on, with
    log-odds critic(x, x̄), x̄ the mean of 3x3 positions.

    :param flows: a :class:`ContextFlow` per level.
    :param head: hidden width of the heads, 0 for none.
    :param critic: hidden width of the critics, 0 for none.
    :param seed: decides where heads and critics start.
    :param contrast: whether they are told from anything; else log p/D is all they say.

    A critic is SimpleNet's discriminator (Liu et al., CVPR 2023, arXiv 2303.15140), of
    three layers and with the surroundings beside the features.

    >>> made = CategoryNetworks([ContextFlow(4, couplings=1)], head=8, critic=8)
    >>> made.normality(0, torch.randn(2, 3, 3, 4), None).shape
    torch.Size([2, 3, 3])
    """

    memory_kind = "parameters"

    def __init__(
        self,
        flows: Sequence[ContextFlow],
        head: int = 0,
        critic: int = 0,
        seed: int = 0,
        contrast: bool = True,
    ) -> None:
        super().__init__()
        self.contrast = contrast
        head, critic = contrast * head, contrast * critic
        self.flows = nn.ModuleList(flows)
        start = torch.tensor([2.3, 0.0])  # log 10: of log p/D, a few tenths apart
        self.logits = nn.Parameter(start.repeat(len(flows), 1))
        widths = [flow.channels for flow in flows]
        with seeded(seed):
            self.heads = nn.ModuleList(_layers(width, head) for width in widths if head)
            self.critics = nn.ModuleList(
                _layers(2 * width, critic, critic) for width in widths if critic
            )

    def log_density(self, index: int, x: Tensor, code: Tensor | None) -> Tensor:
        """Return log p/D of a level's aligned features, (N, H, W).

        :param index: of the level.
        :param x: features (N, H, W, D).
        :param code: of the positions, see :class:`ContextFlow`.
        """
        return log_density(*self.flows[index](x, code))

    def by_flow(self, index: int, x: Tensor, code: Tensor | None) -> Tensor:
        """Return the log-odds of the flow and its head, see :meth:`log_density`."""
        z, log_det = self.flows[index](x, code)
        a, b = self.logits[index]
        found: Tensor = a.exp() * log_density(z, log_det) + b
        if len(self.heads):
            found = found + self.heads[index](z)[..., 0]
        return found

    def by_critic(self, index: int, x: Tensor) -> Tensor:
        """Return the log-odds of the critic, (…).

        :param index: of the level.
        :param x: aligned features and :func:`surroundings`, (…, 2D).
        """
        found: Tensor = self.critics[index](x)[..., 0]
        return found

    def flow_loss(
        self, index: int, x: Tensor, code: Tensor | None, weights: Weights
    ) -> Tensor:
        """Return λ_l · tail_aware(−log p/D) + λ_c · contrast, (N,).

        See :mod:`~avalanche_ad.models.context_flow.objectives`, and :meth:`log_density`
        for the arguments.
        """
        loss = x.new_zeros(len(x))
        if weights.likelihood:
            surprise = -self.log_density(index, x, code)
            tail = tail_aware(surprise, weights.tail, weights.tail_share)
            loss = loss + weights.likelihood * tail
        if weights.contrast:
            regions = noised_regions(x.shape[:3]).to(x)
            mixed = noised(x, regions, weights.noise)
            contrast = contrast_loss(self.by_flow(index, mixed, code), regions)
            loss = loss + weights.contrast * contrast
        return loss

    def normality(self, index: int, x: Tensor, code: Tensor | None) -> Tensor:
        """Return the sum of all log-odds, see :meth:`log_density`."""
        if not self.contrast:
            return self.log_density(index, x, code)
        found = self.by_flow(index, x, code)
        if len(self.critics):
            found = found + self.by_critic(index, torch.cat([x, surroundings(x)], -1))
        return found


def surroundings(x: Tensor) -> Tensor:
    """Return the mean of 3x3 positions around each, fewer at the border, (N, H, W, D).

    :param x: (N, H, W, D).

    >>> surroundings(torch.ones(1, 4, 4, 2)).sum()
    tensor(32.)
    """
    return avg_pool2d(
        x.movedim(3, 1), 3, stride=1, padding=1, count_include_pad=False
    ).movedim(1, 3)


def with_surroundings(x: Tensor, positions: Tensor) -> Tensor:
    """Return some positions' features and :func:`surroundings`, (K, 2, D).

    :param x: (N, H, W, D).
    :param positions: image, row and column of each (K, 3).

    >>> with_surroundings(torch.ones(1, 4, 4, 2), torch.tensor([[0, 0, 3]]))
    tensor([[[1., 1.],
             [1., 1.]]])
    """
    steps = torch.tensor([-1, 0, 1], device=x.device)
    rows, columns = positions[:, 1:2] + steps, positions[:, 2:] + steps  # (K, 3)
    inside = ((rows >= 0) & (rows < x.shape[1]))[:, :, None] & (
        (columns >= 0) & (columns < x.shape[2])
    )[:, None]
    near = x[
        positions[:, 0, None, None],
        rows.clamp(0, x.shape[1] - 1)[:, :, None],
        columns.clamp(0, x.shape[2] - 1)[:, None],
    ]  # (K, 3, 3, D)
    share = inside / inside.sum((1, 2), keepdim=True)
    around = torch.einsum("kij,kijd->kd", share.to(x), near)
    return torch.stack([near[:, 1, 1], around], 1)


def _layers(*widths: int) -> nn.Sequential:
    """Return a network of each position by itself, to one number."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))
