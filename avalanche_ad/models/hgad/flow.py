"""The conditional normalizing flow of one feature level, built from FrEIA's blocks."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.evaluating import seeded

__all__ = ["ConditionalFlow", "FlowStart", "Neighbours"]

FlowStart = Literal["random", "rotation"]

_CHUNK = 2048  # rows whose intermediates stay in a core's cache: a third less time


class _Affine(NamedTuple):
    """A coupling block's numbers for a forward pass without a graph."""

    clamp: float
    inner: Tensor
    coded: Tensor
    outer: Tensor
    bias: Tensor
    rotation: Tensor
    offset: Tensor
    log_det: Tensor

    @classmethod
    def of(cls, block: Any, condition: Tensor | None) -> _Affine:
        """Return those of FrEIA's block, for the positions of a condition (P, …)."""
        first, _, last = block.subnet
        passive = block.splits[0]
        inner, coded = first.weight[:, :passive].T, first.bias[None]
        if condition is not None:
            coded = torch.addmm(first.bias, condition, first.weight[:, passive:].T)
        scale = block.global_scale_activation(block.global_scale)
        offset = block.global_offset[0] @ block.w_perm.T
        return cls(
            block.clamp,
            inner,
            coded,
            0.1 * last.weight.T,  # FrEIA's own tenth
            0.1 * last.bias,
            (block.w_perm * scale).T,
            offset,
            scale.log().sum(),
        )

    def mapped(self, x: Tensor, rows: slice, log_det: Tensor) -> Tensor:
        """Return where vectors (P', D) are mapped to, adding to their log_det (P',).

        :param x: at some of the positions.
        :param rows: which.
        :param log_det: what the blocks before add up to, changed.
        """
        passive = len(self.inner)
        coded = self.coded[rows] if len(self.coded) > 1 else self.coded
        found = torch.addmm(coded, x[:, :passive], self.inner).relu_()
        found = torch.addmm(self.bias, found, self.outer)
        scale, shift = torch.split(found, x.shape[1] - passive, 1)
        log_scale = scale.tanh().mul_(self.clamp)
        log_det += log_scale.sum(1).add_(self.log_det)
        y = torch.empty_like(x)
        y[:, :passive] = x[:, :passive]
        torch.addcmul(shift, x[:, passive:], log_scale.exp_(), out=y[:, passive:])
        return torch.addmm(self.offset, y, self.rotation)


def _softplus_scale(a: Tensor) -> Tensor:
    """Return FrEIA's activation of the global affine's scale, 0.1 · softplus(a)."""
    return 0.1 * nn.functional.softplus(a, beta=0.5)


class Neighbours(nn.Conv2d):
    """A depthwise convolution of vectors that are the positions of maps, row by row.

    Over an edge, a map goes on as it ends there. It starts as the identity.

    :param channels: of the vectors, C.
    :param kernel: positions a side that each sees, odd.

    ``grid`` (H, W) of the maps is set before a pass.

    >>> neighbours = Neighbours(2, 3)
    >>> neighbours.grid = 4, 5
    >>> x = torch.randn(3 * 4 * 5, 2)
    >>> torch.equal(neighbours(x), x)
    True
    """

    grid: tuple[int, int] = (1, 1)

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(
            channels,
            channels,
            kernel,
            padding=kernel // 2,
            padding_mode="replicate",
            groups=channels,
        )
        nn.init.dirac_(self.weight, channels)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return what each position sees.

        :param x: (N · H · W, C).
        :return: likewise.
        """
        maps = x.view(-1, *self.grid, x.shape[1]).movedim(3, 1)
        return super().forward(maps).movedim(1, 3).reshape(x.shape)


class ConditionalFlow(nn.Module):
    """Invertible map of feature vectors to latents, conditioned on the position.

    A stack of FrEIA ``AllInOneBlock`` s: affine coupling with soft clamping, a learned
    global affine (softplus) and a fixed random rotation ("soft permutation"). The
    coupling network is Linear(d, h·d) - ReLU - Linear, as in HGAD.

    With ``kernel`` above 1 a depthwise convolution (:class:`Neighbours`) stands before
    the network's last layer, and vectors are the positions of whole maps, row by row,
    of shape ``grid``. A coupling's scales then depend on what stays of a position and
    of those around it, so log |det| of a map still is the sum of its positions' shares.
    The convolutions start as the identity, and the flow as that without them.

    The rotations are drawn from ``seed`` alone and kept as buffers, so that the same
    arguments build the same flow whatever was drawn before.

    :param channels: feature channels D.
    :param condition_channels: channels of the condition, 0 for none.
    :param couplings: number of blocks.
    :param hidden_ratio: width of the coupling network relative to its input.
    :param clamp: bound of the log-scale of a coupling.
    :param seed: decides rotations and initial weights.
    :param start: ``"random"`` coupling networks, as in HGAD, or ``"rotation"``: their
        last layers are 0, so that the flow starts as an orthogonal map, under which a
        Gaussian stays the Gaussian it is, and learns from there.
    :param kernel: positions a side that a coupling network sees, odd.

    >>> flow = ConditionalFlow(channels=8, condition_channels=4, couplings=2)
    >>> x, condition = torch.randn(5, 8), torch.randn(5, 4)
    >>> z, log_det = flow(x, condition)
    >>> torch.allclose(flow.inverse(z, condition), x, atol=1e-4)
    True
    """

    def __init__(
        self,
        channels: int,
        condition_channels: int = 256,
        couplings: int = 12,
        hidden_ratio: float = 2.0,
        clamp: float = 1.9,
        seed: int = 0,
        start: FlowStart = "random",
        kernel: int = 1,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"expected kernel as an odd number of positions, got {kernel}"
            )
        self.kernel = kernel
        self.channels = channels
        self.condition_channels = condition_channels

        def subnet(inputs: int, outputs: int) -> nn.Module:
            hidden = max(1, round(hidden_ratio * inputs))
            network = nn.Sequential(
                nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
            )
            if start == "rotation":
                for parameter in network[-1].parameters():
                    nn.init.zeros_(parameter)
            return network

        # FrEIA draws its rotations from NumPy's global generator and torch its
        # weights from the global one: both are borrowed, seeded and given back.
        numpy_state = np.random.get_state()  # noqa: NPY002
        try:
            np.random.seed(seed % 2**32)  # noqa: NPY002
            with seeded(seed):
                self.blocks = nn.ModuleList(
                    AllInOneBlock(
                        [(channels,)],
                        dims_c=[(condition_channels,)] if condition_channels else [],
                        subnet_constructor=subnet,
                        affine_clamping=clamp,
                        global_affine_type="SOFTPLUS",
                        permute_soft=True,
                    )
                    for _ in range(couplings)
                )
                # after all other draws, which stay what they are without
                for block in self.blocks if kernel > 1 else ():
                    first, relu, last = block.subnet  # type: ignore[misc]
                    seen = Neighbours(first.out_features, kernel)
                    block.subnet = nn.Sequential(first, relu, seen, last)
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
        for block in self.blocks:
            # FrEIA's is a lambda, which pickle refuses
            block.global_scale_activation = _softplus_scale  # type: ignore[assignment]
            for name in ("w_perm", "w_perm_inv"):
                rotation = getattr(block, name).detach().clone()
                delattr(block, name)
                block.register_buffer(name, rotation)

    def forward(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Map features to latents.

        :param x: (P, D).
        :param condition: (P, condition_channels), or ``None`` without condition.
        :param grid: (H, W) of the maps whose positions are given, P = N · H · W; of
            use with a kernel above 1 alone.
        :return: latents (P, D) and log |det ∂z/∂x| (P,), each position's share of it.
        """
        self._look(grid)
        size = _CHUNK
        if self.kernel > 1 and grid is not None:  # whole maps alone
            size = grid[0] * grid[1] * max(1, _CHUNK // (grid[0] * grid[1]))
        if len(x) > size and not torch.is_grad_enabled():
            codes = [None] if condition is None else torch.split(condition, size)
            parts = [
                self(part, code, grid)
                for part, code in zip(torch.split(x, size), cycle(codes), strict=False)
            ]
            return torch.cat([z for z, _ in parts]), torch.cat([j for _, j in parts])
        conditions = [] if condition is None else [condition]
        log_det = x.new_zeros(len(x))
        for block in self.blocks:
            (x,), block_log_det = block([x], c=conditions)
            log_det = log_det + block_log_det
        return x, log_det

    @torch.no_grad()
    def of_images(
        self,
        x: Tensor,
        condition: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Map features of images to latents, without a graph.

        As :meth:`forward`, but for rounding, in three quarters of its time: what the
        coupling networks make of the condition is the same in every image, and the
        global affine is part of the rotation, x ↦ (s x + t) Rᵀ = x (R s)ᵀ + t Rᵀ. With
        a kernel above 1 it is :meth:`forward`.

        :param x: (N, P, D).
        :param condition: of the positions (P, condition_channels), or ``None``.
        :param grid: see :meth:`forward`, P = H · W.
        :return: latents (N, P, D) and log |det ∂z/∂x| (N, P).
        """
        z, log_det = torch.empty_like(x), x.new_zeros(x.shape[:2])
        if self.kernel > 1:
            for image, one in enumerate(x):
                z[image], log_det[image] = self(one, condition, grid)
            return z, log_det
        blocks = [_Affine.of(block, condition) for block in self.blocks]
        for first in range(0, x.shape[1], _CHUNK):
            rows = slice(first, first + _CHUNK)
            for image in range(len(x)):
                part, total = x[image, rows], log_det[image, rows]
                for block in blocks:
                    part = block.mapped(part, rows, total)
                z[image, rows] = part
        return z, log_det

    def inverse(
        self,
        z: Tensor,
        condition: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Tensor:
        """Map latents back to features.

        :param z: (P, D).
        :param condition: (P, condition_channels), or ``None`` without condition.
        :param grid: see :meth:`forward`.
        :return: features (P, D).
        """
        self._look(grid)
        conditions = [] if condition is None else [condition]
        for block in reversed(self.blocks):
            (z,), _ = block([z], c=conditions, rev=True)
        return z

    def _look(self, grid: tuple[int, int] | None) -> None:
        """Tell the convolutions the shape of the maps."""
        if self.kernel == 1:
            return
        if grid is None:
            raise TrainingError(
                f"a flow with kernel = {self.kernel} was given single positions: "
                "expected whole maps, where it finds their neighbours; set "
                "model.kernel = 1 for what draws positions one by one"
            )
        for block in self.blocks:
            block.subnet[2].grid = grid  # type: ignore[index, union-attr]
