"""Gaussians that know the place: a mean for each position, a covariance for each cell.

    x at position p  ~  N(μ_p, Σ_c(p)),   Σ_c = (1 − λ) S_c + λ W + ridge

μ_p is the mean over a category's N images. S_c is the covariance of the residuals
x − μ_p in cell c of the grid and one position around it, W that of all residuals.

PaDiM (Defard et al., ICPR 2021, arXiv 2011.08785, Eq. 1) has a covariance for each
position, of N vectors each; what neighbours share makes far fewer images enough, and
far fewer covariances.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from avalanche_ad.models.gaussians.algebra import precision_roots

__all__ = [
    "SHARES",
    "PlaceMoments",
    "PlaceSums",
    "cell_of_positions",
    "cell_scatter",
    "chosen_share",
    "moments_without",
    "place_draws",
    "place_log_likelihood",
]

SHARES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
"""Values of λ to choose from."""

_HELD_OUT = 6  # every sixth image
_IMAGES = 8  # at once, so that what they are multiplied to stays in a core's cache
_LEAST_RIDGE = 1e-6  # of constant features


def _bounds(size: int, cells: int) -> list[int]:
    """Return where cells begin, and where the last ends: as even as integers allow."""
    count = min(size, cells)
    return [index * size // count for index in range(count + 1)]


def cell_of_positions(height: int, width: int, cells: int) -> Tensor:
    """Return the cell of every position, (H · W,).

    :param height: H, rows of the grid.
    :param width: W.
    :param cells: rows and columns of cells, fewer where the grid has fewer positions.

    >>> cell_of_positions(2, 5, cells=2).view(2, 5)
    tensor([[0, 0, 1, 1, 1],
            [2, 2, 3, 3, 3]])
    """
    rows, columns = (
        torch.bucketize(
            torch.arange(size), torch.tensor(_bounds(size, cells)[1:-1]), right=True
        )
        for size in (height, width)
    )
    return (rows[:, None] * min(width, cells) + columns).flatten()


def cell_scatter(residuals: Tensor, cells: int, around: int = 1) -> Tensor:
    """Return Σ r rᵀ over the positions of each cell and those around it.

    :param residuals: r (N, H, W, D).
    :param cells: see :func:`cell_of_positions`.
    :param around: so many positions on each side.
    :return: (G, D, D), of G cells.
    """
    found = []
    _, height, width, _ = residuals.shape
    for top, bottom in pairwise(_bounds(height, cells)):
        rows = slice(max(0, top - around), bottom + around)
        for left, right in pairwise(_bounds(width, cells)):
            columns = slice(max(0, left - around), right + around)
            own = residuals[:, rows, columns].flatten(0, 2)
            found.append(own.T @ own)
    return torch.stack(found)


class PlaceMoments(NamedTuple):
    """What a place's Gaussians are made of, but for λ.

    ``field`` μ (H, W, D); ``own`` S (G, D, D); ``shared`` W (D, D); ``variance`` of all
    vectors, mean over dimensions, what the ridge is relative to.

    >>> moments = PlaceSums.of(torch.randn(9, 4, 4, 3), cells=2).moments(2)
    >>> moments.roots(share=0.5, shrinkage=1e-2).shape
    torch.Size([4, 3, 3])
    """

    field: Tensor
    own: Tensor
    shared: Tensor
    variance: Tensor

    def roots(self, share: float, shrinkage: float) -> Tensor:
        """Return R (G, D, D), upper triangular, Σ_c⁻¹ = R Rᵀ.

        :param share: λ.
        :param shrinkage: ridge, relative to the mean variance.
        """
        ridge = (shrinkage * self.variance).clamp(min=_LEAST_RIDGE)
        eye = torch.eye(len(self.shared)).to(self.shared)
        shrunk = (1 - share) * self.own + share * self.shared
        return precision_roots(shrunk + ridge * eye)


class PlaceSums(NamedTuple):
    """Sums over images of one category, of which some can be taken away again.

    Of ``images`` images, residuals from ``reference`` (H, W, D): their sum ``shift``
    (H, W, D), their scatter by cell ``cells`` (G, D, D) and in all ``whole`` (D, D).

    >>> x = torch.randn(9, 4, 4, 3, dtype=torch.double)
    >>> every = PlaceSums.of(x, cells=2)
    >>> rest = every.without(PlaceSums.of(x[:2], 2, every.reference)).moments(2)
    >>> torch.allclose(rest.own, PlaceSums.of(x[2:], 2).moments(2).own)
    True
    """

    images: int
    reference: Tensor
    shift: Tensor
    cells: Tensor
    whole: Tensor

    @classmethod
    def of(cls, x: Tensor, cells: int, reference: Tensor | None = None) -> PlaceSums:
        """Return the sums of images.

        :param x: (N, H, W, D).
        :param cells: see :func:`cell_of_positions`.
        :param reference: (H, W, D), the images' mean by default.
        """
        if reference is None:
            reference = x.mean(0)
        residuals = x - reference
        rows = residuals.flatten(0, 2)
        return cls(
            len(x),
            reference,
            residuals.sum(0).double(),
            cell_scatter(residuals, cells).double(),
            (rows.T @ rows).double(),
        )

    def without(self, some: PlaceSums) -> PlaceSums:
        """Return the sums of the other images.

        :param some: of images that are in these, from the same reference.
        """
        return PlaceSums(
            self.images - some.images,
            self.reference,
            self.shift - some.shift,
            self.cells - some.cells,
            self.whole - some.whole,
        )

    def moments(self, cells: int) -> PlaceMoments:
        """Return means and unbiased covariances (PaDiM, Eq. 1), in double.

        A single image has no residuals: how its positions differ takes their place.

        :param cells: as the sums were taken.
        """
        shift = self.shift / self.images
        field = self.reference.double() + shift
        ones = torch.ones_like(shift[None, ..., :1])
        freedom = max(self.images - 1, 1)
        own = self.cells - self.images * cell_scatter(shift[None], cells)
        own = own / (freedom * cell_scatter(ones, cells))
        rows, means = shift.flatten(0, 1), field.flatten(0, 1)
        shared = (self.whole - self.images * (rows.T @ rows)) / (freedom * len(rows))
        gaps = means - means.mean(0)
        between = gaps.T @ gaps / len(gaps)
        variance = (shared + between).diagonal().mean()
        return PlaceMoments(
            field, own, shared if self.images > 1 else between, variance
        )


def moments_without(
    x: Tensor, cells: int, parts: Sequence[Tensor]
) -> Iterator[PlaceMoments]:
    """Yield the moments of some of the images: the whole's sums less the others'.

    :param x: features (N, H, W, D).
    :param cells: see :func:`cell_of_positions`.
    :param parts: rows to keep, for each.
    """
    sums = PlaceSums.of(x, cells)
    rows = torch.arange(len(x), device=x.device)
    for kept in parts:
        others = x[~torch.isin(rows, kept.to(rows))]
        yield sums.without(PlaceSums.of(others, cells, sums.reference)).moments(cells)


def chosen_share(x: Tensor, cells: int, shrinkage: float) -> float:
    """Return λ: how far cells' covariances are shrunk to that of all residuals.

    That of :data:`SHARES` under which every sixth image is likeliest by a fit to the
    others; 1 for fewer than six images.

    :param x: a category's training features (N, H, W, D).
    :param cells: see :func:`cell_of_positions`.
    :param shrinkage: see :meth:`PlaceMoments.roots`.
    """
    if len(x) < _HELD_OUT:
        return 1.0
    held = torch.arange(len(x), device=x.device) % _HELD_OUT == _HELD_OUT - 1
    moments = PlaceSums.of(x[~held], cells).moments(cells)
    cell = cell_of_positions(x.shape[1], x.shape[2], cells).to(x.device)
    residuals = (x[held] - moments.field.to(x)).flatten(1, 2)

    def likelihood(share: float) -> float:
        roots = moments.roots(share, shrinkage).to(x)
        return float(place_log_likelihood(residuals, cell, roots).mean())

    return max(SHARES, key=likelihood)


def place_log_likelihood(residuals: Tensor, cell: Tensor, roots: Tensor) -> Tensor:
    """Return log p(x) = log|R_c| − D/2 log 2π − ½|(x − μ_p) R_c|² at positions.

    Half the square of PaDiM's distance (Eq. 2), and what normalises it.

    :param residuals: x − μ_p (N, P, D).
    :param cell: c of each position (P,).
    :param roots: R (G, D, D), upper triangular.
    :return: (N, P).
    """
    used, positions = _by_cell(cell)
    own = roots[used]
    constants = own.diagonal(0, -2, -1).log().sum(-1) - 0.5 * own.shape[-1] * math.log(
        2 * math.pi
    )
    found = residuals.new_empty(residuals.shape[:2])
    for first in range(0, len(residuals), _IMAGES):
        rows = residuals[first : first + _IMAGES, positions].transpose(0, 1)
        squared = (rows.flatten(1, 2) @ own).square_().sum(-1).view(rows.shape[:3])
        value = constants[:, None, None] - 0.5 * squared
        found[first : first + _IMAGES, positions] = value.transpose(0, 1)
    return found


def place_draws(noise: Tensor, cell: Tensor, roots: Tensor) -> Tensor:
    """Return residuals drawn at positions: ε R_c⁻¹, of covariance Σ_c.

    :param noise: ε, standard normal (P, D).
    :param cell: c of each (P,).
    :param roots: R (G, D, D), upper triangular.
    :return: (P, D).
    """
    used, rows = _by_cell(cell)
    drawn = torch.empty_like(noise)
    drawn[rows] = torch.linalg.solve_triangular(
        roots[used], noise[rows], upper=True, left=False
    )
    return drawn


def _by_cell(cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells there are (G',), and which rows are of each (G', M).

    A cell of fewer rows than another has its last one several times.
    """
    used, index, counts = torch.unique(cell, return_inverse=True, return_counts=True)
    order = index.argsort(stable=True)
    last = counts.cumsum(0)[:, None] - 1
    column = torch.arange(int(counts.max()), device=cell.device)
    return used, order[(last - counts[:, None] + 1 + column).minimum(last)]
