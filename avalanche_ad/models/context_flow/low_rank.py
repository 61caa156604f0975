"""Flows of many categories that share a base and differ by matrices of low rank."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.models.context_flow.flow import ContextFlow, Coupling
from avalanche_ad.models.evaluating import seeded

__all__ = ["LowRankConv", "adapted"]


class LowRankConv(nn.Module):
    """A convolution that is another's, plus one of low rank and a bias of its own.

    y = conv(x) + B A x + b. It starts as the other: B and b are 0. The other's
    parameters are not this one's: they stay where they are, and are read there.

    :param base: a convolution 1x1.
    :param rank: rows of A, at most as many as the convolution has channels.

    Source: Hu et al., "LoRA", ICLR 2022, Eq. 3; with a bias as DeCoFlow (Im et al.,
    arXiv 2606.26687).

    >>> base = nn.Conv2d(4, 6, 1)
    >>> x = torch.randn(1, 4, 2, 2)
    >>> torch.equal(LowRankConv(base, 2)(x), base(x))
    True
    """

    def __init__(self, base: nn.Conv2d, rank: int) -> None:
        super().__init__()
        self._base = (base,)  # no submodule: it is another's
        out, inputs = base.weight.shape[:2]
        rank = min(rank, inputs, out)
        self.down = nn.Parameter(torch.empty(rank, inputs, 1, 1))
        nn.init.xavier_uniform_(self.down.flatten(1))
        self.up = nn.Parameter(torch.zeros(out, rank, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D', H, W)."""
        found: Tensor = self._base[0](x)
        return found + F.conv2d(F.conv2d(x, self.down), self.up, self.bias)


def adapted(base: ContextFlow, rank: int, seed: int, auxiliary: int = 0) -> ContextFlow:
    """Return a flow that starts as another and differs from it by low-rank matrices.

    Its convolutions 1x1 are :class:`LowRankConv` s, of rank 1 for the position code;
    the depthwise ones, some thousand numbers, are copied. Auxiliary couplings come
    after them: what no matrix of low rank can do.

    :param base: the flow whose parameters it reads.
    :param rank: of the matrices.
    :param seed: decides their start.
    :param auxiliary: couplings of its own, of D/2 hidden channels and no position code
        (DeCoFlow, arXiv 2606.26687: two of them).

    >>> base = ContextFlow(4, couplings=2, hidden=8)
    >>> flow = adapted(base, rank=2, seed=0)
    >>> x = torch.randn(1, 4, 3, 3)
    >>> torch.equal(flow(x)[0], base(x)[0])
    True
    """
    made = copy.deepcopy(base).requires_grad_(True)
    with seeded(seed):
        for own, shared in zip(made.blocks, base.blocks, strict=True):
            own.inner = LowRankConv(shared.inner, rank)  # type: ignore[arg-type]
            own.outer = LowRankConv(shared.outer, rank)  # type: ignore[arg-type]
            if shared.coded is not None:
                own.coded = LowRankConv(shared.coded, 1)  # type: ignore[arg-type]
        channels = base.channels
        for _ in range(auxiliary):
            made.blocks.append(Coupling(channels, 0, max(1, channels // 2), kernel=1))
            order = torch.randperm(channels)[None].to(made.orders)
            made.orders = torch.cat([made.orders, order])
    return made.to(base.orders.device)
