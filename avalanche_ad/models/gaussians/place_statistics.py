"""Feature statistics that know the place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.gaussians.feature_statistics import FeatureStatistics
from avalanche_ad.models.gaussians.fitting import drawn_rows
from avalanche_ad.models.gaussians.kept_statistics import (
    KeptStatistics,
    StatisticsPrecision,
)
from avalanche_ad.models.gaussians.place import moments_without
from avalanche_ad.models.gaussians.place_density import PlaceDensity

__all__ = ["PlaceStatistics", "statistics_like"]


class PlaceStatistics(KeptStatistics):
    """A Gaussian for every position of a category's features, to sample from.

    x_p = μ_p + L_c(p) ε, see :class:`PlaceDensity`: features where they belong, which
    a mixture with a mean field draws with the same residuals everywhere. The groups of
    samples are those of the nearest of K means (k-means of the features); a mixture
    that follows from them has a Gaussian for each.

    :param layout: shapes of the feature levels.
    :param components: K per category and level, at most one for each vector there is.
    :param precision: type of number that is kept.
    :param shrinkage: see :class:`PlaceDensity`.
    :param max_positions: feature vectors per category and level for k-means.
    :param max_iter: its steps at most.
    :param seed: decides the vectors used and its start.

    Shapes, per level l: ``centers_l`` (C, K, D), and those of ``levels.l``, a
    :class:`PlaceDensity`.

    >>> layout = FeatureLayout(((4, 4, 3),))
    >>> statistics = PlaceStatistics(layout, components=2)
    >>> statistics.fit_category(0, torch.randn(5, layout.size))
    >>> statistics.sample(torch.tensor([0, 0])).shape
    torch.Size([2, 48])
    """

    def __init__(
        self,
        layout: FeatureLayout,
        components: int = 10,
        *,
        precision: StatisticsPrecision = "float16",
        shrinkage: float = 1e-2,
        max_positions: int = 20_000,
        max_iter: int = 30,
        seed: int = 0,
    ) -> None:
        super().__init__(
            layout,
            "place",
            components,
            mean_field=True,
            precision=precision,
            shrinkage=shrinkage,
            max_positions=max_positions,
            max_iter=max_iter,
            seed=seed,
        )
        kept = getattr(torch, precision)
        for index, (_, _, channels) in enumerate(layout.levels):
            self.add_table(f"centers_{index}", components, channels, dtype=kept)
        self.levels = nn.ModuleList(
            PlaceDensity(*shape, shrinkage=shrinkage, dtype=kept)
            for shape in layout.levels
        )

    @classmethod
    def like(
        cls,
        layout: FeatureLayout,
        state: Mapping[str, Tensor],
        prefix: str = "statistics.",
    ) -> PlaceStatistics:
        """Return empty statistics of the form that a state has.

        :param layout: shapes of the feature levels.
        :param state: tensors by name.
        :param prefix: of the names.
        """
        centers = state[f"{prefix}centers_0"]
        made = cls(layout, centers.shape[1])
        return made.to(centers.dtype)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        return f"components={self.components}, categories={int(self.known.sum())}"

    def level(self, index: int) -> PlaceDensity:
        """Return the Gaussians of a level."""
        found = self.levels[index]
        assert isinstance(found, PlaceDensity)
        return found

    def resize(self, num_categories: int) -> None:
        """Make room for categories that have nothing yet."""
        super().resize(num_categories)
        for index in range(len(self.layout.levels)):
            self.level(index).resize(num_categories)

    @torch.no_grad()
    def fit_category(self, category: int, features: Tensor) -> None:
        """Take the statistics of a category's training features.

        :param category: category index.
        :param features: (N, layout.size).
        """
        self.resize(category + 1)
        generator = self.generator(category)
        for index, level in enumerate(self.layout.unflatten(features)):
            density = self.level(index)
            density.shrinkage = self.shrinkage
            density.fit(category, level)
            rows = level.flatten(0, 2)
            rows = rows[drawn_rows(len(rows), self.max_positions, generator)]
            table = self.get_buffer(f"centers_{index}")
            table[category] = self._means(rows).to(table)
        self.known[category] = True
        self.images[category] = len(features)

    def _means(self, rows: Tensor) -> Tensor:
        """Return K means of rows (N, D); where there are fewer rows some twice."""
        count = min(self.components, len(torch.unique(rows, dim=0)))
        found = KMeans(
            count, n_init=1, max_iter=self.max_iter, random_state=self.seed
        ).fit(rows.float().cpu().numpy())
        means = torch.as_tensor(found.cluster_centers_)
        return means[torch.arange(self.components) % count]

    @torch.no_grad()
    def without(
        self, category: int, features: Tensor, parts: Sequence[Tensor]
    ) -> Iterator[PlaceStatistics]:
        """Yield the statistics as they are when a category has some images alone.

        Exact, but for how far covariances are shrunk and how samples are grouped, which
        stays.

        :param category: category with statistics.
        :param features: what it was fitted to (N, layout.size).
        :param parts: which of the images to keep, indices (M,).
        """
        moments = [
            moments_without(level, self.level(index).cells, parts)
            for index, level in enumerate(self.layout.unflatten(features))
        ]
        for kept, of_levels in zip(parts, zip(*moments, strict=True), strict=True):
            made = copy.deepcopy(self)
            for index, own in enumerate(of_levels):
                density = made.level(index)
                density.shrinkage = self.shrinkage
                density.put(category, own, float(density.shares[category]), len(kept))
            yield made

    def gaussians(self, index: int, category: int) -> None:
        """Return ``None``: the samples of a group are of no one Gaussian."""
        return

    @torch.no_grad()
    def sample_level(
        self,
        index: int,
        categories: Tensor,
        positions: Tensor,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw feature vectors of one level, see :class:`KeptStatistics`."""
        density, centers = self.level(index), self.get_buffer(f"centers_{index}")
        noise = torch.randn(len(categories), centers.shape[2], generator=generator).to(
            categories.device
        )
        x = torch.empty_like(noise)
        group = torch.empty_like(categories)
        for category in sorted(set(categories.tolist())):
            rows = (categories == category).nonzero().flatten()
            drawn = density.draws(category, positions[rows], noise[rows])
            x[rows] = drawn
            group[rows] = torch.cdist(drawn, centers[category].to(drawn)).argmin(1)
        return x, group


def statistics_like(
    layout: FeatureLayout, state: Mapping[str, Tensor], prefix: str = "statistics."
) -> KeptStatistics | None:
    """Return empty statistics of the form that a state has, ``None`` where it has none.

    :param layout: shapes of the feature levels.
    :param state: tensors by name.
    :param prefix: of the names.
    """
    for form, table in ((PlaceStatistics, "centers_0"), (FeatureStatistics, "means_0")):
        if prefix + table in state:
            return form.like(layout, state, prefix)
    return None
