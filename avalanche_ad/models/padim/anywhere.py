"""A second expert beside the density of a place: one that knows no place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from avalanche_ad.models.gaussians import (
    CategoryMixtures,
    component_log_likelihood,
    drawn_rows,
    fit_mixture,
    precision_roots,
    refitted,
)

__all__ = ["Anywhere"]


class Anywhere(nn.Module):
    """A mixture of K full Gaussians per category and level, the same at all positions.

    :param widths: D of every level.
    :param components: K; with 0 there are no mixtures.
    :param shrinkage: see :func:`~avalanche_ad.models.gaussians.fit_mixture`.
    :param max_positions: feature vectors per category and level used for fitting.
    :param seed: decides the vectors used and the start of the EM.

    >>> anywhere = Anywhere([3], components=2)
    >>> x = torch.randn(5, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    >>> anywhere.fit(0, [x])
    >>> anywhere.levels([x], 0)[0].shape
    torch.Size([5, 4, 4])
    """

    def __init__(
        self,
        widths: Sequence[int],
        components: int,
        shrinkage: float = 1e-2,
        max_positions: int = 20_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.components = components
        self.shrinkage = shrinkage
        self.max_positions = max_positions
        self.seed = seed
        self.mixtures = nn.ModuleList(
            CategoryMixtures(width, components) for width in widths if components
        )

    def _mixture(self, index: int) -> CategoryMixtures:
        mixture = self.mixtures[index]
        assert isinstance(mixture, CategoryMixtures)
        return mixture

    def resize(self, num_categories: int) -> None:
        """Make room for categories without fitting them."""
        for index in range(len(self.mixtures)):
            self._mixture(index).resize(num_categories)

    def _generator(self, category: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1009 + category)

    def fit(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit a category's mixtures.

        :param category: its index.
        :param levels: training features, one (N, H, W, D) per level.
        """
        generator = self._generator(category)
        for index in range(len(self.mixtures)):
            found = fit_mixture(
                levels[index].flatten(0, 2),
                self.components,
                self.shrinkage,
                self.max_positions,
                generator,
                self.seed,
            )
            self._mixture(index).put(
                category,
                torch.as_tensor(found.weights_),
                torch.as_tensor(found.means_),
                torch.as_tensor(found.precisions_cholesky_),
            )

    def levels(self, levels: Sequence[Tensor], category: int) -> list[Tensor]:
        """Return log p(x|c) per position, one (N, H, W) per level.

        :param levels: features, one (N, H, W, D) per level.
        :param category: that has mixtures.
        """
        one = torch.tensor([category], device=levels[0].device)
        return [
            self._mixture(index).log_likelihood(x.flatten(0, 2), one).view(x.shape[:3])
            for index, x in enumerate(levels)
        ]

    def levels_without(
        self,
        category: int,
        levels: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
    ) -> Iterator[list[Tensor]]:
        """Yield :meth:`levels` under the mixtures of some images alone.

        They take one more step of the EM, on those of the vectors fitted to that are of
        these images (:func:`~avalanche_ad.models.gaussians.refitted`).

        :param category: that has mixtures.
        :param levels: features it was fitted to, one (N, H, W, D) per level.
        :param parts: rows to fit to, and rows (M,) to evaluate, of each part.
        """
        generator, drawn = self._generator(category), []
        for index, level in enumerate(levels):
            x, mixture = level.flatten(0, 2), self._mixture(index)
            rows = drawn_rows(len(x), self.max_positions, generator).to(x.device)
            joint = component_log_likelihood(
                x[rows],
                mixture.log_weights[category],
                mixture.means[category],
                mixture.precision_roots[category],
            )
            image = rows // (level.shape[1] * level.shape[2])
            drawn.append((x[rows], image, joint.softmax(1)))
        for rest, rows in parts:
            some = Anywhere(
                [level.shape[-1] for level in levels], self.components, self.shrinkage
            ).to(levels[0].device)
            for index, (vectors, image, shares) in enumerate(drawn):
                used = torch.isin(image, rest.to(image))
                fit = refitted(vectors[used], shares[used], self.shrinkage)
                roots = precision_roots(fit.covariance)
                some._mixture(index).put(0, fit.weight, fit.mean, roots)
            yield some.levels([level[rows] for level in levels], 0)
