import pytest
import torch

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.alignment import Alignment
from avalanche_ad.models.gaussians import (
    FeatureStatistics,
    PlaceStatistics,
    statistics_like,
)

LAYOUT = FeatureLayout(((8, 8, 6), (2, 3, 8)))


def features(count=40, seed=0):
    """Another mean at every position, and a spread that grows to the right."""
    generator = torch.Generator().manual_seed(seed)
    levels = []
    for height, width, channels in LAYOUT.levels:
        own = torch.Generator().manual_seed(channels)
        field = 3 * torch.randn(height, width, channels, generator=own)
        spread = torch.linspace(0.5, 2, width)[:, None]
        noise = torch.randn(count, height, width, channels, generator=generator)
        levels.append(field + spread * noise)
    return LAYOUT.flatten(levels)


def test_samples_are_where_the_features_are():
    x = features(200)
    kept = PlaceStatistics(LAYOUT, 3, shrinkage=1e-4)
    kept.fit_category(2, x)
    drawn = kept.sample(torch.full((2000,), 2), torch.Generator().manual_seed(1))
    for found, expected in zip(
        LAYOUT.unflatten(drawn), LAYOUT.unflatten(x), strict=True
    ):
        torch.testing.assert_close(found.mean(0), expected.mean(0), atol=0.3, rtol=0)
    found, expected = (LAYOUT.unflatten(y)[0] for y in (drawn, x))
    ratio = found.std(0).mean(-1) / expected.std(0).mean(-1)
    # the quietest share with louder neighbours on one side alone
    assert ((ratio - 1).abs() < 0.6).all()
    assert ((ratio[:, 1:] - 1).abs() < 0.25).all()


def test_a_mean_field_with_the_same_residuals_everywhere_is_further():
    x, new = features(100), features(200, 1)
    errors = []
    for kept in (
        PlaceStatistics(LAYOUT),
        FeatureStatistics(LAYOUT, 1, mean_field=True),
    ):
        kept.fit_category(0, x)
        drawn = kept.sample(torch.zeros(500, dtype=torch.long))
        spread, true = (LAYOUT.unflatten(y)[0].std(0).mean(-1) for y in (drawn, new))
        errors.append(float((spread / true).log().abs().mean()))
    assert errors[0] < 0.5 * errors[1]


def test_groups_are_of_the_nearest_mean_and_the_same_generator_draws_the_same():
    kept = PlaceStatistics(LAYOUT, 4)
    kept.fit_category(0, features() - 100)
    kept.fit_category(1, features() + 100)
    categories = torch.tensor([0, 1, 1, 0] * 20)
    positions = torch.arange(80) % 64
    x, group = kept.sample_level(
        0, categories, positions, torch.Generator().manual_seed(5)
    )
    again, _ = kept.sample_level(
        0, categories, positions, torch.Generator().manual_seed(5)
    )
    assert torch.equal(x, again)
    assert (x[categories == 0] < 0).all()
    assert (x[categories == 1] > 0).all()
    assert len(group.unique()) == 4
    centers = kept.centers_0[categories].float()
    assert torch.equal((x[:, None] - centers).norm(dim=2).argmin(1), group)


def test_more_groups_than_vectors_are_some_of_them_empty():
    kept = PlaceStatistics(LAYOUT, 20)
    kept.fit_category(0, features(1))
    assert bool(kept.centers_1[0].isfinite().all())
    _, group = kept.sample_level(1, torch.zeros(50).long(), torch.arange(50) % 6)
    assert len(group.unique()) <= 6


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_its_state_says_its_form(precision):
    alignment = Alignment(LAYOUT)
    alignment.statistics = PlaceStatistics(LAYOUT, 2, precision=precision)
    alignment.statistics.fit_category(0, features())
    alignment.statistics.fit_category(3, features(seed=1))
    other = Alignment(LAYOUT)
    other.statistics = FeatureStatistics(LAYOUT, 2)
    other.load_state_dict(alignment.state_dict())
    found = other.statistics
    assert isinstance(found, PlaceStatistics)
    assert (found.form, found.precision, found.components) == ("place", precision, 2)
    assert found.categories.tolist() == [0, 3]
    assert found.bytes == alignment.statistics.bytes
    first, second = (
        kept.sample(torch.tensor([0, 3]), torch.Generator().manual_seed(4))
        for kept in (alignment.statistics, found)
    )
    assert torch.equal(first, second)
    assert statistics_like(LAYOUT, {}) is None


def test_without_some_images_it_is_as_fitted_to_the_others():
    x = features(24)
    kept = PlaceStatistics(LAYOUT, 2, precision="float32")
    kept.fit_category(1, x)
    rest = torch.arange(20)
    (found,) = kept.without(1, x, [rest])
    direct = PlaceStatistics(LAYOUT, 2, precision="float32")
    direct.fit_category(1, x[rest])
    for index in range(2):
        ours, theirs = found.level(index), direct.level(index)
        torch.testing.assert_close(
            ours._field(1, x), theirs._field(1, x), rtol=1e-4, atol=1e-4
        )
        if torch.equal(ours.shares, theirs.shares):
            torch.testing.assert_close(
                ours._roots(1, x), theirs._roots(1, x), rtol=1e-2, atol=1e-3
            )
    assert kept.level(0).images.tolist() == [0, 24]
