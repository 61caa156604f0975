"""The hierarchical Gaussian mixture of one feature level.

One group of K unit-covariance Gaussians per category. The first Gaussian of a group
sits on the category's main centre μ_c, the others at μ_c + δ_ck. The pure functions
hold the densities; the module holds the parameters and lets them grow by category.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from avalanche_ad.models.category_table import CategoryTable

__all__ = [
    "CenterInit",
    "HierarchicalMixture",
    "category_log_likelihood",
    "inner_centers",
    "orthogonal_centers",
    "pattern_centers",
    "squared_distances",
]

CenterInit = Literal["pattern", "orthogonal", "data"]
CENTER_NORM = 5.0 / math.sqrt(2.0)  # HGAD: 5/√(2D/C) on D/C of D axes


def squared_distances(z: Tensor, centers: Tensor) -> Tensor:
    """Return ‖z − μ‖² to every centre.

    :param z: (..., P, D).
    :param centers: (..., M, D).
    :return: (..., P, M).
    """
    cross = z @ centers.transpose(-1, -2)
    norms = centers.square().sum(-1).unsqueeze(-2)
    return z.square().sum(-1, keepdim=True) + norms - 2 * cross


def inner_centers(centers: Tensor) -> Tensor:
    """Return the positions of all Gaussians of every category.

    As in HGAD the main centre is detached: losses on the inner mixture move the
    offsets δ, never μ.

    :param centers: (C, K, D), main centre μ_c first, then the offsets δ_ck.
    :return: (C, K, D), μ_c and μ_c + δ_ck.
    """
    main = centers[:, :1].detach()
    return torch.cat([main, main + centers[:, 1:]], dim=1)


def category_log_likelihood(
    z: Tensor, log_det: Tensor, centers: Tensor, inner_logits: Tensor
) -> Tensor:
    """Return log p(x|c) of every position under the inner mixture of one category.

    log p(x|c) = logsumexp_k(−½‖z − μ_ck‖² + log ω_ck) − ½D·log 2π + J.

    :param z: latents (N, P, D).
    :param log_det: J (N, P).
    :param centers: positions of the category's Gaussians, (N, K, D) or (K, D).
    :param inner_logits: ψ (N, K) or (K,).
    :return: (N, P), in nats.

    Source: Yao et al., "Hierarchical Gaussian Mixture Normalizing Flow Modeling for
    Unified Anomaly Detection", ECCV 2024, Eq. 10.
    """
    log_weights = inner_logits.log_softmax(-1).unsqueeze(-2)
    inner = torch.logsumexp(-0.5 * squared_distances(z, centers) + log_weights, dim=-1)
    return inner - 0.5 * z.shape[-1] * math.log(2 * math.pi) + log_det


def pattern_centers(
    categories: Sequence[int], dimensions: int, period: int = 16
) -> Tensor:
    """Return HGAD's initial main centres, well-defined while categories arrive.

    HGAD puts a value on every C-th axis, with C the final number of categories. Here
    the period P is fixed beforehand instead: category c uses the axes s, s + P,
    s + 2P, … with s = c mod P, and its signs on them follow row ⌊c / P⌋ of the
    Sylvester-Hadamard sequence. Centres of different categories are orthogonal while
    the rows last (D categories where D / P is a power of 2) and, as in HGAD, have the
    norm 5/√2 and the distance 5. Beyond them a category gets a random direction of
    its own.

    :param categories: category indices.
    :param dimensions: D.
    :param period: P, at most D.
    :return: (len(categories), D).
    """
    period = min(period, dimensions)
    axes = torch.arange(dimensions)
    centers = torch.zeros(len(categories), dimensions)
    for row, category in enumerate(categories):
        used = axes[axes % period == category % period]
        block = category // period
        if block >= len(used):
            generator = torch.Generator().manual_seed(category)
            draw = torch.randn(dimensions, generator=generator)
            centers[row] = CENTER_NORM * nn.functional.normalize(draw, dim=0)
            continue
        bits = [bin(block & int(index)).count("1") % 2 for index in range(len(used))]
        signs = 1.0 - 2.0 * torch.tensor(bits, dtype=torch.float32)
        centers[row, used] = signs * (CENTER_NORM / math.sqrt(len(used)))
    return centers


def orthogonal_centers(
    existing: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return new main centres orthogonal to the existing ones and to each other.

    :param existing: (C, D) centres in use.
    :param count: how many to add.
    :param generator: source of the directions.
    :return: (count, D), each of norm 5/√2. Once the D directions are used up the rest
        are random directions.
    """
    dimensions = existing.shape[1]
    draws = torch.randn(count, dimensions, generator=generator).to(existing)
    free = max(0, dimensions - len(existing))
    basis = torch.cat([existing, draws[:free]])
    if free and len(basis):
        directions = torch.linalg.qr(basis.T).Q.T[len(existing) :]
        draws = torch.cat([directions, draws[free:]])
    return CENTER_NORM * nn.functional.normalize(draws, dim=1)


class HierarchicalMixture(CategoryTable):
    """Parameters of the mixture of one level, and which categories it knows.

    All categories share stacked parameters, of which only the first dimension grows;
    a category that has not been seen is left out by ``known``.

    :param dimensions: D.
    :param centers_per_category: K.
    :param seed: decides the initial offsets.

    Shapes: ``centers`` (C, K, D), main centre first then offsets; ``class_logits`` φ
    (C,); ``inner_logits`` ψ (C, K).

    >>> mixture = HierarchicalMixture(4, centers_per_category=3)
    >>> mixture.resize(2)
    >>> mixture.add([1], pattern_centers([1], 4))
    >>> mixture.centers.shape, mixture.categories.tolist()
    (torch.Size([2, 3, 4]), [1])
    """

    centers: nn.Parameter
    class_logits: nn.Parameter
    inner_logits: nn.Parameter

    def __init__(
        self, dimensions: int, centers_per_category: int = 10, seed: int = 0
    ) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.centers_per_category = centers_per_category
        self.seed = seed
        self.add_table("centers", centers_per_category, dimensions, trained=True)
        self.add_table("class_logits", trained=True)
        self.add_table("inner_logits", centers_per_category, trained=True)

    def named_parts(self, categories: Sequence[int]) -> dict[str, Tensor]:
        """Return weights, centres and offsets of categories by name."""
        centers = self.centers[categories]
        return {
            "class weights φ": self.class_logits[categories].softmax(0),
            "inner weights ψ": self.inner_logits[categories].softmax(1),
            "main centres μ": centers[:, 0],
            "offsets δ": centers[:, 1:],
        }

    def blank_rows(self, name: str, categories: Sequence[int]) -> Tensor:
        """Return the rows that categories start with, see :class:`CategoryTable`.

        The offsets of category c depend on the seed and c alone, so the order and the
        grouping in which categories arrive do not change them.
        """
        rows = super().blank_rows(name, categories)
        if name == "centers":
            for row, category in zip(rows, categories, strict=True):
                generator = torch.Generator().manual_seed(
                    self.seed * 1_000_003 + category
                )
                row[1:] = torch.randn(row[1:].shape, generator=generator)
        return rows

    @torch.no_grad()
    def place(self, categories: Sequence[int], main_centers: Tensor) -> None:
        """Set the main centres of categories, started or not.

        :param categories: category indices.
        :param main_centers: (len(categories), D).
        """
        self.centers[list(categories), 0] = main_centers.to(self.centers)

    @torch.no_grad()
    def add(self, categories: Sequence[int], main_centers: Tensor) -> None:
        """Start new categories at the given main centres.

        :param categories: category indices.
        :param main_centers: (len(categories), D).
        """
        self.place(categories, main_centers)
        self.known[list(categories)] = True
