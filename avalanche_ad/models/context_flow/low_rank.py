"""Flows of many categories that share a base and differ by matrices of low rank."""

from __future__ import annotations

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
    :param rank: rows of A; where the convolution has no more, a full matrix does in
        the place of A and B.

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


class _Copied(nn.Conv2d):
    """A convolution that starts as a copy of another."""

    @classmethod
    def of(cls, base: nn.Conv2d) -> _Copied:
        made = cls(
            base.in_channels,
            base.out_channels,
            base.kernel_size,  # type: ignore[arg-type]
            padding=base.padding,  # type: ignore[arg-type]
            groups=base.groups,
        )
        made.load_state_dict(base.state_dict())
        return made


def adapted(base: ContextFlow, rank: int, seed: int) -> ContextFlow:
    """Return a flow that starts as another and differs from it by low-rank matrices.

    The convolutions 1x1 that mix channels are :class:`LowRankConv` s; what the position
    code adds is the base's; the depthwise ones, some thousand numbers, are copied.

    :param base: the flow whose parameters it reads.
    :param rank: of the matrices.
    :param seed: decides their start.

    >>> base = ContextFlow(4, couplings=2, hidden=8)
    >>> flow = adapted(base, rank=2, seed=0)
    >>> x = torch.randn(1, 4, 3, 3)
    >>> torch.equal(flow(x)[0], base(x)[0])
    True
    """
    made = ContextFlow.__new__(ContextFlow)
    nn.Module.__init__(made)
    made.register_buffer("orders", base.orders.clone(), persistent=False)
    with seeded(seed):
        made.blocks = nn.ModuleList(_adapted(block, rank) for block in base.blocks)
    return made.to(base.orders.device)


def _adapted(base: nn.Module, rank: int) -> Coupling:
    assert isinstance(base, Coupling)
    made = Coupling.__new__(Coupling)
    nn.Module.__init__(made)
    made.passive, made.active, made.clamp = base.passive, base.active, base.clamp
    made.inner = LowRankConv(base.inner, rank)  # type: ignore[assignment]
    made.outer = LowRankConv(base.outer, rank)  # type: ignore[assignment]
    made.coded = made.context = None
    if base.coded is not None:
        made.coded = LowRankConv(base.coded, 1)  # type: ignore[assignment]
    if base.context is not None:
        made.context = _Copied.of(base.context)
    return made
