"""Mixtures of feature vectors, one for each category and level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from avalanche_ad.models.gaussians.algebra import (
    component_log_likelihood,
    precision_roots,
)
from avalanche_ad.models.gaussians.category_mixtures import CategoryMixtures
from avalanche_ad.models.gaussians.fitting import drawn_rows, fit_mixture, refitted

__all__ = ["LevelMixtures"]


class LevelMixtures(nn.ModuleList):
    """A mixture of K full Gaussians per category and level, the same at all positions.

    A list of a :class:`CategoryMixtures` per level.

    :param widths: D of every level.
    :param components: K; with 0 there are no mixtures.
    :param shrinkage: see :func:`~avalanche_ad.models.gaussians.fit_mixture`.
    :param max_positions: feature vectors per category and level used for fitting.
    :param seed: decides the vectors used and the start of the EM.

    >>> mixtures = LevelMixtures([3], components=2)
    >>> x = torch.randn(5, 16, 3, generator=torch.Generator().manual_seed(0))
    >>> mixtures.fit(0, [x])
    >>> mixtures.log_likelihood(0, x, torch.tensor([0])).shape
    torch.Size([5, 16, 1])
    """

    def __init__(
        self,
        widths: Sequence[int],
        components: int,
        shrinkage: float = 1e-2,
        max_positions: int = 20_000,
        seed: int = 0,
    ) -> None:
        super().__init__(
            CategoryMixtures(width, components) for width in widths if components
        )
        self.components = components
        self.shrinkage = shrinkage
        self.max_positions = max_positions
        self.seed = seed

    def level(self, index: int) -> CategoryMixtures:
        """Return the mixtures of a level."""
        mixture = self[index]
        assert isinstance(mixture, CategoryMixtures)
        return mixture

    def resize(self, num_categories: int) -> None:
        """Make room for categories without fitting them."""
        for index in range(len(self)):
            self.level(index).resize(num_categories)

    def _generator(self, category: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 1009 + category)

    def fit(self, category: int, levels: Sequence[Tensor]) -> None:
        """Fit a category's mixtures.

        :param category: its index.
        :param levels: training features, one (N, P, D) per level.
        """
        generator = self._generator(category)
        for index in range(len(self)):
            found = fit_mixture(
                levels[index].flatten(0, 1),
                self.components,
                self.shrinkage,
                self.max_positions,
                generator,
                self.seed,
            )
            self.level(index).put(
                category,
                torch.as_tensor(found.weights_),
                torch.as_tensor(found.means_),
                torch.as_tensor(found.precisions_cholesky_),
            )

    def log_likelihood(self, index: int, x: Tensor, categories: Tensor) -> Tensor:
        """Return log p(x|c) (N, P, C').

        :param index: level.
        :param x: features (N, P, D).
        :param categories: indices (C',) of categories that have mixtures.
        """
        found = self.level(index).log_likelihood(x.flatten(0, 1), categories)
        return found.view(*x.shape[:2], len(categories))

    def drawn(
        self, category: int, levels: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield, per level, the vectors that a category was fitted to.

        :param category: that has mixtures.
        :param levels: features it was fitted to, one (N, P, D) per level.
        :return: vectors (V, D), the image of each (V,), and which Gaussian it is of, as
            far as the mixture can tell (V, K).
        """
        generator = self._generator(category)
        for index, level in enumerate(levels):
            x, mixture = level.flatten(0, 1), self.level(index)
            rows = drawn_rows(len(x), self.max_positions, generator).to(x.device)
            joint = component_log_likelihood(
                x[rows],
                mixture.log_weights[category],
                mixture.means[category],
                mixture.precision_roots[category],
            )
            yield x[rows], rows // level.shape[1], joint.softmax(1)

    def without(
        self, category: int, levels: Sequence[Tensor], parts: Sequence[Tensor]
    ) -> Iterator[LevelMixtures]:
        """Yield a category's mixtures of some images alone, as those of category 0.

        They take one more step of the EM, on those images alone: of one Gaussian that
        is the fit to them, of several the fit but for which Gaussian holds what, at a
        hundredth of its cost (:func:`~avalanche_ad.models.gaussians.refitted`).

        :param category: that has mixtures.
        :param levels: features it was fitted to, one (N, P, D) per level.
        :param parts: which of the images to keep, indices (M,).
        """
        drawn = list(self.drawn(category, levels))
        widths = [level.shape[-1] for level in levels]
        for kept in parts:
            made = LevelMixtures(widths, self.components, self.shrinkage)
            made.to(levels[0].device)
            for index, (vectors, image, shares) in enumerate(drawn):
                used = torch.isin(image, kept.to(image))
                fit = refitted(vectors[used], shares[used], self.shrinkage)
                roots = precision_roots(fit.covariance)
                made.level(index).put(0, fit.weight, fit.mean, roots)
            yield made

    def levels_without(
        self,
        category: int,
        features: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor]],
    ) -> Iterator[list[Tensor]]:
        """Yield log p(x|c) (M, H, W) per level under :meth:`without`'s mixtures.

        :param category: that has mixtures.
        :param features: it was fitted to, one (N, H, W, D) per level.
        :param parts: rows to fit to, and rows (M,) to evaluate, of each part.
        """
        levels = [level.flatten(1, 2) for level in features]
        first = torch.zeros(1, dtype=torch.long, device=levels[0].device)
        made = self.without(category, levels, [rest for rest, _ in parts])
        for mixtures, (_, rows) in zip(made, parts, strict=True):
            yield [
                mixtures.log_likelihood(index, level.flatten(1, 2), first).view(
                    level.shape[:3]
                )
                for index, level in enumerate(one[rows] for one in features)
            ]
