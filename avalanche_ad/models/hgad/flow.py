"""The conditional normalizing flow of one feature level, built from FrEIA's blocks."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from FrEIA.modules import AllInOneBlock
from torch import Tensor, nn

from avalanche_ad.models.evaluating import seeded

__all__ = ["ConditionalFlow", "FlowStart"]

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


class ConditionalFlow(nn.Module):
    """Invertible map of feature vectors to latents, conditioned on the position.

    A stack of FrEIA ``AllInOneBlock`` s: affine coupling with soft clamping, a learned
    global affine (softplus) and a fixed random rotation ("soft permutation"). The
    coupling network is Linear(d, h·d) - ReLU - Linear, as in HGAD.

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
    ) -> None:
        super().__init__()
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
        self, x: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map features to latents.

        :param x: (P, D).
        :param condition: (P, condition_channels), or ``None`` without condition.
        :return: latents (P, D) and log |det ∂z/∂x| (P,).
        """
        if len(x) > _CHUNK and not torch.is_grad_enabled():
            codes = [None] if condition is None else torch.split(condition, _CHUNK)
            parts = [
                self(part, code)
                for part, code in zip(
                    torch.split(x, _CHUNK), cycle(codes), strict=False
                )
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
        self, x: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map features of images to latents, without a graph.

        As :meth:`forward`, but for rounding, in three quarters of its time: what the
        coupling networks make of the condition is the same in every image, and the
        global affine is part of the rotation, x ↦ (s x + t) Rᵀ = x (R s)ᵀ + t Rᵀ.

        :param x: (N, P, D).
        :param condition: of the positions (P, condition_channels), or ``None``.
        :return: latents (N, P, D) and log |det ∂z/∂x| (N, P).
        """
        blocks = [_Affine.of(block, condition) for block in self.blocks]
        z, log_det = torch.empty_like(x), x.new_zeros(x.shape[:2])
        for first in range(0, x.shape[1], _CHUNK):
            rows = slice(first, first + _CHUNK)
            for image in range(len(x)):
                part, total = x[image, rows], log_det[image, rows]
                for block in blocks:
                    part = block.mapped(part, rows, total)
                z[image, rows] = part
        return z, log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map latents back to features.

        :param z: (P, D).
        :param condition: (P, condition_channels), or ``None`` without condition.
        :return: features (P, D).
        """
        conditions = [] if condition is None else [condition]
        for block in reversed(self.blocks):
            (z,), _ = block([z], c=conditions, rev=True)
        return z
