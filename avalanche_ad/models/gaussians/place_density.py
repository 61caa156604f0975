"""Gaussians that know the place, one set a category, in a compact form."""

from __future__ import annotations

import torch
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.category_table import CategoryTable
from avalanche_ad.models.gaussians.place import (
    PlaceMoments,
    PlaceSums,
    cell_of_positions,
    chosen_share,
    place_draws,
    place_log_likelihood,
)

__all__ = ["PlaceDensity"]


class PlaceDensity(CategoryTable):
    """For each category a Gaussian at every position of a level's grid.

    Its mean is the position's, its covariance the cell's, see
    :mod:`~avalanche_ad.models.gaussians.place`. Both are kept in units of the
    category's standard deviation, from its mean, which is what numbers of two bytes
    hold best: 1.3 MB a category of 32 × 32 positions, 128 channels and 8 × 8 cells,
    where a covariance for each position takes 67 MB in four bytes.

    :param height: H.
    :param width: W.
    :param channels: D.
    :param cells: rows and columns of cells; at most one for each position.
    :param shrinkage: ridge on the covariances, relative to the features' mean variance.
    :param dtype: type of number that is kept.

    Shapes: ``means`` (C, D); ``scales`` (C,); ``fields`` (C, H · W, D), (μ − mean) /
    scale; ``roots`` (C, G, D (D + 1) / 2), packed, R · scale, upper triangular,
    Σ⁻¹ = R Rᵀ. ``shares`` (C,), λ; ``images`` (C,), of how many images each was taken.

    >>> density = PlaceDensity(4, 4, 3, cells=2)
    >>> x = torch.randn(20, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    >>> density.fit(1, x)
    >>> density.categories, density.log_likelihood(x.flatten(1, 2), 1).shape
    (tensor([1]), torch.Size([20, 16]))
    """

    means: Tensor
    scales: Tensor
    fields: Tensor
    roots: Tensor
    shares: Tensor
    images: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        cells: int = 8,
        shrinkage: float = 1e-2,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        super().__init__()
        self.cells = cells
        self.shrinkage = shrinkage
        self._cell = cell_of_positions(height, width, cells)
        self._triangle = torch.triu_indices(channels, channels)
        count = int(self._cell.max()) + 1
        self.add_table("means", channels, dtype=dtype)
        self.add_table("scales", dtype=dtype)
        self.add_table("fields", height * width, channels, dtype=dtype)
        self.add_table("roots", count, self._triangle.shape[1], dtype=dtype)
        self.add_table("shares", dtype=dtype)
        self.add_table("images", dtype=torch.long)

    @torch.no_grad()
    def fit(self, category: int, x: Tensor) -> None:
        """Fit a category.

        :param category: its index.
        :param x: its training features (N, H, W, D).
        """
        share = chosen_share(x, self.cells, self.shrinkage)
        moments = PlaceSums.of(x, self.cells).moments(self.cells)
        self.put(category, moments, share, len(x))

    @torch.no_grad()
    def put(
        self, category: int, moments: PlaceMoments, share: float, images: int
    ) -> None:
        """Give a category its Gaussians.

        :param category: its index.
        :param moments: of its features.
        :param share: λ.
        :param images: of how many images the moments are.
        :raises TrainingError: when the type of number has no room for one.
        """
        field, roots = moments.field, moments.roots(share, self.shrinkage)
        # what is kept besides is relative to these as they are kept
        mean = field.mean((0, 1)).to(self.means.dtype)
        scale = moments.variance.sqrt().clamp(min=1e-3).to(self.scales.dtype)
        unit = scale.to(field)
        rows, columns = self._triangle
        kept = {
            "means": mean,
            "scales": scale,
            "fields": ((field - mean.to(field)) / unit).flatten(0, 1),
            "roots": roots[:, rows, columns] * unit,
        }
        dtype = self.means.dtype
        if not all(bool(row.to(dtype).isfinite().all()) for row in kept.values()):
            raise TrainingError(
                f"category {category} has features up to {float(field.abs().max()):g}, "
                f"more than numbers up to {torch.finfo(dtype).max:g} can hold: take a "
                "backbone whose features are whitened"
            )
        self.set_rows(
            category,
            **kept,
            shares=torch.tensor(share),
            images=torch.tensor(images),
        )

    def log_likelihood(
        self, x: Tensor, category: int, positions: Tensor | None = None
    ) -> Tensor:
        """Return log p(x|c) at positions, (N, P).

        :param x: (N, P, D).
        :param category: that has Gaussians.
        :param positions: indices (P,) into the H · W positions; all by default.
        """
        cell = self._cell.to(x.device)
        field = self._field(category, x)
        if positions is not None:
            cell, field = cell[positions], field[positions]
        return place_log_likelihood(x - field, cell, self._roots(category, x))

    def draws(self, category: int, positions: Tensor, noise: Tensor) -> Tensor:
        """Return features drawn at positions, (P, D).

        :param category: that has Gaussians.
        :param positions: indices (P,) into the H · W positions.
        :param noise: standard normal (P, D).
        """
        cell = self._cell.to(noise.device)[positions]
        drawn = place_draws(noise, cell, self._roots(category, noise))
        return self._field(category, noise)[positions] + drawn

    def _field(self, category: int, like: Tensor) -> Tensor:
        """Return μ (H · W, D)."""
        mean, scale, field = (
            table[category].to(like) for table in (self.means, self.scales, self.fields)
        )
        return mean + scale * field

    def _roots(self, category: int, like: Tensor) -> Tensor:
        """Return R (G, D, D)."""
        packed = self.roots[category].to(like)
        width = self.means.shape[1]
        roots = packed.new_zeros(len(packed), width, width)
        rows, columns = self._triangle
        roots[:, rows, columns] = packed / self.scales[category].to(like)
        return roots
