"""Full-covariance Gaussian mixtures, one for each category, stacked."""

from __future__ import annotations

from torch import Tensor

from avalanche_ad.models.category_table import CategoryTable
from avalanche_ad.models.gaussians.mixture_likelihood import mixture_log_likelihood

__all__ = ["CategoryMixtures"]


class CategoryMixtures(CategoryTable):
    """A mixture of K full-covariance Gaussians for each category, in one space.

    Fitted, not trained: buffers alone.

    :param dimensions: D.
    :param components: K.

    Shapes: ``log_weights`` (C, K); ``means`` (C, K, D); ``precision_roots`` R
    (C, K, D, D), upper triangular, covariance⁻¹ = R Rᵀ.

    >>> import torch
    >>> mixtures = CategoryMixtures(dimensions=2, components=1)
    >>> mixtures.put(3, torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None])
    >>> mixtures.categories
    tensor([3])
    >>> mixtures.log_likelihood(torch.zeros(1, 2), mixtures.categories)
    tensor([[-1.8379]])
    """

    log_weights: Tensor
    means: Tensor
    precision_roots: Tensor

    def __init__(self, dimensions: int, components: int) -> None:
        super().__init__()
        self.add_table("log_weights", components)
        self.add_table("means", components, dimensions)
        self.add_table("precision_roots", components, dimensions, dimensions)

    def put(
        self, category: int, weights: Tensor, means: Tensor, precision_roots: Tensor
    ) -> None:
        """Give a category its mixture.

        :param weights: (K,), summing to 1.
        :param means: (K, D).
        :param precision_roots: R (K, D, D), upper triangular.
        """
        self.set_rows(
            category,
            log_weights=weights.log(),
            means=means,
            precision_roots=precision_roots,
        )

    def log_likelihood(self, x: Tensor, categories: Tensor) -> Tensor:
        """Return log p(x|c) of given categories.

        :param x: (N, D).
        :param categories: indices (C',) of categories that have a mixture.
        :return: (N, C').
        """
        return mixture_log_likelihood(
            x,
            self.log_weights[categories],
            self.means[categories],
            self.precision_roots[categories],
        )
