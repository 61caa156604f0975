"""What is kept of a category in the place of its images: statistics of its features."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.gaussians.algebra import (
    component_log_likelihood,
    precision_roots,
)
from avalanche_ad.models.gaussians.covariances import (
    Covariance,
    low_rank_plus_diagonal,
)
from avalanche_ad.models.gaussians.fitting import drawn_rows, fit_mixture, refitted
from avalanche_ad.models.gaussians.kept_statistics import (
    KeptStatistics,
    StatisticsPrecision,
)
from avalanche_ad.models.gaussians.moments import Moments

__all__ = ["FeatureStatistics"]


class FeatureStatistics(KeptStatistics):
    """A mixture of Gaussians of a category's features per level, to sample from.

    x = m(p) + r with r from a mixture of K Gaussians fitted by EM: m the mean of the
    category's images at position p with ``mean_field``, else 0. The backbone is
    frozen, so these statistics never drift. They are kept in a compact form: the
    triangular root of a covariance, packed, or rank r and diagonal.

    :param layout: shapes of the feature levels.
    :param components: K per category and level.
    :param covariance: ``"full"``, ``"low_rank"`` or ``"diagonal"``.
    :param rank: r of ``"low_rank"``.
    :param mean_field: whether the mean over images is kept for every position.
    :param precision: type of number that is kept.
    :param shrinkage: see :func:`~avalanche_ad.models.gaussians.fit_mixture`.
    :param max_positions: feature vectors per category and level used for fitting.
    :param max_iter: steps of the EM at most, after k-means.
    :param seed: decides the vectors used and the start of the EM.

    Shapes, per level l: ``weights_l`` (C, K); ``means_l`` (C, K, D); ``factors_l``
    (C, K, D (D + 1) / 2) packed or (C, K, D · r); ``diagonals_l`` (C, K, D) or
    (C, K, 0); ``fields_l`` (C, H · W, D) or (C, 0, D). ``known`` (C,); ``images`` (C,),
    of how many images each category's were taken.

    >>> layout = FeatureLayout(((4, 4, 3),))
    >>> statistics = FeatureStatistics(layout, components=2)
    >>> statistics.fit_category(0, torch.randn(5, layout.size))
    >>> statistics.sample(torch.tensor([0, 0])).shape
    torch.Size([2, 48])
    """

    def __init__(
        self,
        layout: FeatureLayout,
        components: int = 10,
        covariance: Covariance = "full",
        *,
        rank: int = 16,
        mean_field: bool = False,
        precision: StatisticsPrecision = "float16",
        shrinkage: float = 1e-2,
        max_positions: int = 20_000,
        max_iter: int = 30,
        seed: int = 0,
    ) -> None:
        if covariance not in ("full", "diagonal", "low_rank"):
            raise ValueError(
                "expected covariance 'full', 'diagonal' or 'low_rank', "
                f"got {covariance!r}"
            )
        super().__init__(
            layout,
            covariance,
            components,
            mean_field=mean_field,
            precision=precision,
            shrinkage=shrinkage,
            max_positions=max_positions,
            max_iter=max_iter,
            seed=seed,
        )
        self.covariance: Covariance = covariance
        self.rank = rank if covariance == "low_rank" else 0
        kept = getattr(torch, precision)
        for index, (height, width, channels) in enumerate(layout.levels):
            full = covariance == "full"
            columns = min(self.rank, channels)
            packed = channels * (channels + 1) // 2 if full else channels * columns
            shapes = {
                "weights": (components,),
                "means": (components, channels),
                "factors": (components, packed),
                "diagonals": (components, 0 if full else channels),
                "fields": (height * width if mean_field else 0, channels),
            }
            for name, shape in shapes.items():
                self.add_table(f"{name}_{index}", *shape, dtype=kept)

    @classmethod
    def like(
        cls,
        layout: FeatureLayout,
        state: Mapping[str, Tensor],
        prefix: str = "statistics.",
    ) -> FeatureStatistics:
        """Return empty statistics of the form that a state has.

        :param layout: shapes of the feature levels.
        :param state: tensors by name.
        :param prefix: of the names.
        """
        components = state[f"{prefix}means_0"].shape[1]
        dtype = state[f"{prefix}means_0"].dtype
        full = not state[f"{prefix}diagonals_0"].shape[2]
        # a level's rank is cut to its width
        rank = max(
            state[f"{prefix}factors_{index}"].shape[2] // width
            for index, (_, _, width) in enumerate(layout.levels)
        )
        form: Covariance = "low_rank" if rank else "diagonal"
        return cls(
            layout,
            components,
            "full" if full else form,
            rank=rank,
            mean_field=state[f"{prefix}fields_0"].shape[1] > 0,
        ).to(dtype)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return (
            f"components={self.components}, covariance={self.covariance!r}, "
            f"mean_field={self.mean_field}, categories={int(self.known.sum())}"
        )

    @torch.no_grad()
    def fit_category(self, category: int, features: Tensor) -> None:
        """Take the statistics of a category's training features.

        :param category: category index.
        :param features: (N, layout.size).
        """
        self.resize(category + 1)
        generator = self.generator(category)
        for index, level in enumerate(self.layout.unflatten(features)):
            x = level.flatten(1, 2)
            if self.mean_field:
                field = x.mean(0)
                self._put(f"fields_{index}", category, field)
                x = x - field
            mixture = fit_mixture(
                x.flatten(0, 1),
                self.components,
                self.shrinkage,
                self.max_positions,
                generator,
                self.seed,
                self.max_iter,
            )
            self._put_mixture(
                index,
                category,
                torch.as_tensor(mixture.weights_),
                torch.as_tensor(mixture.means_),
                torch.as_tensor(mixture.covariances_),
            )
        self.known[category] = True
        self.images[category] = len(features)

    @torch.no_grad()
    def without(
        self, category: int, features: Tensor, parts: Sequence[Tensor]
    ) -> Iterator[FeatureStatistics]:
        """Yield the statistics as they are when a category has some images alone.

        The mixture takes one more step of the EM on those of the vectors it was fitted
        to, see :func:`~avalanche_ad.models.gaussians.refitted`.

        :param category: category with statistics.
        :param features: what it was fitted to (N, layout.size).
        :param parts: which of the images to keep, indices (M,).
        """
        generator = self.generator(category)
        levels = self.layout.unflatten(features)
        drawn = []
        for index, level in enumerate(levels):
            x = level.flatten(1, 2)
            positions = x.shape[1]
            if self.mean_field:
                x = x - self.get_buffer(f"fields_{index}")[category].to(x)
            x = x.flatten(0, 1)
            rows = drawn_rows(len(x), self.max_positions, generator).to(x.device)
            gaussians = self._gaussians(index, category)
            joint = component_log_likelihood(
                x[rows].double(),
                gaussians.weight.log().double(),
                gaussians.mean.double(),
                precision_roots(gaussians.covariance.double()),
            )
            drawn.append((rows // positions, rows % positions, joint.softmax(1)))
        for kept in parts:
            made = copy.deepcopy(self)
            for index, (level, (image, position, shares)) in enumerate(
                zip(levels, drawn, strict=True)
            ):
                used = torch.isin(image, kept.to(image))
                x = level.flatten(1, 2)
                vectors = x[image[used], position[used]]
                if self.mean_field:
                    field = x[kept].mean(0)
                    made._put(f"fields_{index}", category, field)
                    vectors = vectors - field[position[used]]
                found = refitted(vectors, shares[used], self.shrinkage)
                made._put_mixture(
                    index, category, found.weight, found.mean, found.covariance
                )
            yield made

    def _put_mixture(
        self,
        index: int,
        category: int,
        weights: Tensor,
        means: Tensor,
        covariance: Tensor,
    ) -> None:
        if self.covariance == "full":
            roots = torch.linalg.cholesky(covariance)
            rows, columns = self._triangle(means.shape[-1])
            self._put(f"factors_{index}", category, roots[:, rows, columns])
        else:
            factor, diagonal = low_rank_plus_diagonal(covariance, self.rank)
            self._put(f"factors_{index}", category, factor.flatten(1))
            self._put(f"diagonals_{index}", category, diagonal)
        self._put(f"weights_{index}", category, weights)
        self._put(f"means_{index}", category, means)

    def _put(self, name: str, category: int, value: Tensor) -> None:
        buffer = self.get_buffer(name)
        buffer[category] = value.to(buffer)

    @staticmethod
    def _triangle(width: int) -> tuple[Tensor, Tensor]:
        rows, columns = torch.tril_indices(width, width)
        return rows, columns

    def gaussians(self, index: int, category: int) -> Moments | None:
        """Return the mixture of a category's features, ``None`` with a mean field.

        :param index: level.
        :param category: category with statistics.
        :return: weights that sum to 1, means (K, D) and covariances (K, D, D), float32.
        """
        return None if self.mean_field else self._gaussians(index, category)

    def _gaussians(self, index: int, category: int) -> Moments:
        weights, means, factors, diagonals = (
            self.get_buffer(f"{name}_{index}")[category].float()
            for name in ("weights", "means", "factors", "diagonals")
        )
        roots = torch.stack([self._root(packed, means.shape[1]) for packed in factors])
        covariance = roots @ roots.transpose(-1, -2)
        if self.covariance != "full":
            covariance = covariance + torch.diag_embed(diagonals)
        return Moments(weights / weights.sum(), means, covariance)

    def _root(self, packed: Tensor, width: int) -> Tensor:
        """Return F (D, columns) of a covariance F Fᵀ, plus a diagonal unless full."""
        if self.covariance != "full":
            return packed.view(width, -1)
        root = packed.new_zeros(width, width)
        root[self._triangle(width)] = packed
        return root

    @torch.no_grad()
    def sample_level(
        self,
        index: int,
        categories: Tensor,
        positions: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw feature vectors of one level, see :class:`KeptStatistics`.

        The group of each is the component it was drawn from.
        """
        weights = self.get_buffer(f"weights_{index}")[categories].float().cpu()
        drawn = torch.multinomial(weights, 1, generator=generator).squeeze(1)
        drawn = drawn.to(categories.device)
        x = self.get_buffer(f"means_{index}")[categories, drawn].float()
        width = x.shape[1]
        group = categories * self.components + drawn
        factors = self.get_buffer(f"factors_{index}")
        for own in sorted(set(group.tolist())):
            rows = (group == own).nonzero().flatten()
            category, component = divmod(own, self.components)
            root = self._root(factors[category, component].float(), width)
            noise = torch.randn(len(rows), root.shape[1], generator=generator)
            x[rows] += noise.to(x) @ root.T
        if self.covariance != "full":
            diagonal = self.get_buffer(f"diagonals_{index}")[categories, drawn].float()
            noise = torch.randn(x.shape, generator=generator)
            x = x + diagonal.sqrt() * noise.to(x)
        if self.mean_field:
            x = x + self.get_buffer(f"fields_{index}")[categories, positions].float()
        return x, drawn
