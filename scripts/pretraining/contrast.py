"""Learning without labels: two views of an image are told from all other images'."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, grid_sample, normalize

__all__ = ["PLACES", "STAGES", "TEMPERATURE", "Projections", "nt_xent"]

TEMPERATURE = 0.2
STAGES = 2
"""So many last stages are compared."""
PLACES = 4
"""So many places of each image."""
_HIDDEN, _OUT = 256, 128


def nt_xent(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the normalised, temperature-scaled cross entropy of pairs.

    L = −1/2N Σ_i log exp(s_ij/τ) / Σ_{k≠i} exp(s_ik/τ), j the other one of i's pair and
    s the cosine similarity among all 2N (SimCLR: Chen et al., ICML 2020, equation 1).

    :param first: (N, D).
    :param second: (N, D), row by row the partners.
    :param temperature: τ.
    """
    count = len(first)
    with torch.autocast(first.device.type, enabled=False):
        rows = normalize(torch.cat([first, second]).float())
        similarity = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
        partner = torch.arange(2 * count, device=rows.device).roll(count)
        return cross_entropy(similarity, partner)


class Projections(nn.Module):
    """Heads that the contrastive loss compares behind, gone after training.

    :param channels: of the stages compared, the last one's also pooled.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.dense = nn.ModuleList(_head(width) for width in channels)
        self.pooled = _head(channels[-1])

    def forward(self, maps: Sequence[Tensor], places: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of two views of each image: pooled, and place by place.

        L = L_pooled + mean over stages of L_dense, both :func:`nt_xent`: images against
        images, and a place against every other place of every image (DenseCL: Wang et
        al., CVPR 2021; here the pairs are the same place, as in PixPro: Xie et al.,
        CVPR 2021).

        :param maps: (2N, C, H, W) of each stage: N first views, then N second ones.
        :param places: of each image in the plane of its first and of its second view,
            (N, P, 2) each, see :func:`places_in_both`.
        """
        pooled = self.pooled(maps[-1].mean((2, 3), keepdim=True)).flatten(1)
        total = _halves(pooled)
        grid = torch.cat(places)[:, :, None].to(pooled.device)
        for head, level in zip(self.dense, maps, strict=True):
            shown = grid_sample(
                head(level).float(), grid, padding_mode="border", align_corners=False
            )
            rows = shown[..., 0].transpose(1, 2).flatten(0, 1)
            total = total + _halves(rows) / len(self.dense)
        return total


def _halves(rows: Tensor) -> Tensor:
    first, second = rows.chunk(2)
    return nt_xent(first, second)


def _head(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, _HIDDEN, 1, bias=False),
        nn.BatchNorm2d(_HIDDEN),
        nn.ReLU(),
        nn.Conv2d(_HIDDEN, _OUT, 1),
    )
