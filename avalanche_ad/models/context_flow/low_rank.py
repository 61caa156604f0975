"""Flows of many categories that share a base and differ by matrices of low rank."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.models.context_flow.flow import ContextFlow, Coupling
from avalanche_ad.models.evaluating import seeded

__all__ = ["LowRankLinear", "adapted"]


class LowRankLinear(nn.Module):
    """A linear layer that is another's, plus one of low rank and a bias of its own.

    y = W x + B A x + b. It starts as the other: B and b are 0. The other's
    parameters are not this one's: they stay where they are, and are read there.

    :param base: a linear layer.
    :param rank: rows of A, at most as many as the layer has channels.

    Source: Hu et al., "LoRA", ICLR 2022, Eq. 3; with a bias as DeCoFlow (Im et al.,
    arXiv 2606.26687).

    >>> base = nn.Linear(4, 6)
    >>> x = torch.randn(2, 4)
    >>> torch.equal(LowRankLinear(base, 2)(x), base(x))
    True
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self._base = (base,)  # no submodule: it is another's
        out, inputs = base.weight.shape
        rank = min(rank, inputs, out)
        self.down = nn.Parameter(torch.empty(rank, inputs))
        nn.init.xavier_uniform_(self.down)
        self.up = nn.Parameter(torch.zeros(out, rank))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, D')."""
        found: Tensor = self._base[0](x)
        return found + F.linear(F.linear(x, self.down), self.up, self.bias)


def adapted(base: ContextFlow, rank: int, seed: int, auxiliary: int = 0) -> ContextFlow:
    """Return a flow that starts as another and differs from it by low-rank matrices.

    Its linear layers are :class:`LowRankLinear` s, of rank 1 for the position code;
    the depthwise convolutions, some thousand numbers, are copied. Auxiliary couplings
    come after them: what no matrix of low rank can do.

    :param base: the flow whose parameters it reads.
    :param rank: of the matrices.
    :param seed: decides their start.
    :param auxiliary: couplings of its own, of D/2 hidden channels and no position code
        (DeCoFlow, arXiv 2606.26687: two of them).

    >>> base = ContextFlow(4, couplings=2, hidden=8)
    >>> flow = adapted(base, rank=2, seed=0)
    >>> x = torch.randn(1, 3, 3, 4)
    >>> torch.equal(flow(x)[0], base(x)[0])
    True
    """
    made = copy.deepcopy(base).requires_grad_(True)
    with seeded(seed):
        for own, shared in zip(made.blocks, base.blocks, strict=True):
            own.inner = LowRankLinear(shared.inner, rank)  # type: ignore[arg-type]
            own.outer = LowRankLinear(shared.outer, rank)  # type: ignore[arg-type]
            if shared.coded is not None:
                own.coded = LowRankLinear(shared.coded, 1)  # type: ignore[arg-type]
        channels = base.channels
        for _ in range(auxiliary):
            made.blocks.append(Coupling(channels, 0, max(1, channels // 2), kernel=1))
            order = torch.randperm(channels)[None].to(made.orders)
            made.orders = torch.cat([made.orders, order])
    return made.to(base.orders.device)
