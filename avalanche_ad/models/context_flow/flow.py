"""A normalizing flow of whole feature maps, each position in view of its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_ad.models.evaluating import seeded

__all__ = ["ContextFlow", "Coupling"]


class Coupling(nn.Module):
    """An affine coupling whose network sees a neighbourhood.

    Half of the channels, u, stays; the other, v, becomes

        v' = v ⊙ exp(s) + t,  s = α tanh(s̃ / α),  (s̃, t) = network(u, position),

    so that log |det| of the whole map is the sum of s, and s summed over channels is a
    position's share of it. The network is a layer of each position by itself, a
    depthwise convolution of ``kernel`` x ``kernel`` and another layer, with a ReLU
    after the first two; the position code enters beside u. It starts at 0, the coupling
    as the identity.

    :param channels: D, even.
    :param code_channels: of the position code, 0 for none.
    :param hidden: width of the network.
    :param kernel: odd; 1 for a flow that sees one position at a time.
    :param clamp: α.

    Source: Dinh et al., "Density estimation using Real NVP", ICLR 2017, Eq. 7-8;
    spatial networks as in FastFlow (Yu et al., 2021, arXiv 2111.07677).

    >>> coupling = Coupling(4, 0, hidden=8)
    >>> _ = nn.init.normal_(coupling.outer.weight)
    >>> x = torch.randn(2, 5, 5, 4)
    >>> z, log_det = coupling(x, None)
    >>> torch.allclose(coupling.inverse(z, None), x, atol=1e-5), log_det.shape
    (True, torch.Size([2, 5, 5]))
    """

    def __init__(
        self,
        channels: int,
        code_channels: int,
        hidden: int = 128,
        kernel: int = 3,
        clamp: float = 1.5,
    ) -> None:
        super().__init__()
        self.passive = channels // 2
        self.active = channels - self.passive
        self.clamp = clamp
        self.inner = nn.Linear(self.passive, hidden)
        self.coded = (
            nn.Linear(code_channels, hidden, bias=False) if code_channels else None
        )
        self.context = (
            nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden)
            if kernel > 1
            else None
        )
        self.outer = nn.Linear(hidden, 2 * self.active)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def _affine(self, u: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return s and t, (N, H, W, D/2) each."""
        h = self.inner(u)
        if self.coded is not None and code is not None:
            h = h + self.coded(code)
        h = F.relu(h)
        if self.context is not None:
            h = F.relu(self.context(h.movedim(3, 1)).movedim(1, 3))
        s, t = self.outer(h).split(self.active, -1)
        return self.clamp * torch.tanh(s / self.clamp), t

    def forward(self, x: Tensor, code: Tensor | None) -> tuple[Tensor, Tensor]:
        """Map features on.

        :param x: (N, H, W, D).
        :param code: of the positions, (H, W, code_channels).
        :return: (N, H, W, D), and each position's share of log |det|, (N, H, W).
        """
        u, v = torch.split(x, [self.passive, self.active], -1)
        s, t = self._affine(u, code)
        return torch.cat([u, torch.addcmul(t, v, s.exp())], -1), s.sum(-1)

    def inverse(self, z: Tensor, code: Tensor | None) -> Tensor:
        """Map back, see :meth:`forward`."""
        u, v = torch.split(z, [self.passive, self.active], -1)
        s, t = self._affine(u, code)
        return torch.cat([u, (v - t) * (-s).exp()], -1)


class ContextFlow(nn.Module):
    """A stack of :class:`Coupling` s with fixed permutations of the channels.

    It starts as a permutation, under which a Gaussian stays the Gaussian it is.

    :param channels: D.
    :param code_channels: see :class:`Coupling`, like those that follow.
    :param couplings: how many.
    :param seed: decides permutations and initial weights.

    >>> flow = ContextFlow(4, couplings=2, hidden=8)
    >>> x = torch.randn(2, 5, 5, 4)
    >>> z, log_det = flow(x)
    >>> torch.allclose(flow.inverse(z), x, atol=1e-5), log_det.shape
    (True, torch.Size([2, 5, 5]))
    """

    memory_kind = "parameters"

    def __init__(
        self,
        channels: int,
        code_channels: int = 0,
        couplings: int = 6,
        hidden: int = 128,
        kernel: int = 3,
        clamp: float = 1.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.channels = channels
        with seeded(seed):
            self.blocks = nn.ModuleList(
                Coupling(channels, code_channels, hidden, kernel, clamp)
                for _ in range(couplings)
            )
            orders = [torch.randperm(channels) for _ in range(couplings)]
        self.orders: Tensor
        # what the same arguments draw again need not be in a state
        self.register_buffer("orders", torch.stack(orders), persistent=False)

    def forward(self, x: Tensor, code: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map features to latents.

        :param x: (N, H, W, D).
        :param code: of the positions, (H, W, code_channels).
        :return: latents (N, H, W, D), and each position's share of log |det ∂z/∂x|,
            (N, H, W).
        """
        log_det = x.new_zeros(x.shape[:3])
        for order, block in zip(self.orders, self.blocks, strict=True):
            x, share = block(x.index_select(3, order), code)
            log_det = log_det + share
        return x, log_det

    def inverse(self, z: Tensor, code: Tensor | None = None) -> Tensor:
        """Map latents back to features, see :meth:`forward`."""
        for order, block in zip(
            reversed(self.orders), reversed(self.blocks), strict=True
        ):
            z = block.inverse(z, code)  # type: ignore[operator]
            z = z.index_select(3, order.argsort())
        return z
