import pytest
import torch

from avalanche_ad.errors import TrainingError
from avalanche_ad.experiments.accounting import KINDS
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.gaussians import FeatureStatistics

LAYOUT = FeatureLayout(((4, 4, 6), (2, 2, 8)))


def features(count=40, seed=0):
    """Two groups of positions, correlated channels, another mean at every position."""
    generator = torch.Generator().manual_seed(seed)
    levels = []
    for height, width, channels in LAYOUT.levels:
        own = torch.Generator().manual_seed(channels)
        mixing = torch.randn(channels, channels, generator=own)
        field = 3 * torch.randn(height, width, channels, generator=own)
        noise = torch.randn(count, height, width, channels, generator=generator)
        levels.append(field + noise @ mixing)
    return LAYOUT.flatten(levels)


def moments(x, index):
    rows = LAYOUT.unflatten(x)[index].flatten(0, 2)
    return rows.mean(0), torch.cov(rows.T)


@pytest.mark.parametrize("mean_field", [True, False])
@pytest.mark.parametrize(
    ("covariance", "rank"), [("full", 0), ("low_rank", 3), ("low_rank", 99)]
)
def test_samples_have_the_moments_of_the_features(covariance, rank, mean_field):
    x = features(200)
    kept = FeatureStatistics(
        LAYOUT, 1, covariance, rank=rank, mean_field=mean_field, shrinkage=0.0
    )
    kept.fit_category(2, x)
    drawn = kept.sample(torch.full((1500,), 2), torch.Generator().manual_seed(1))
    assert drawn.shape == (1500, LAYOUT.size)
    for index in range(2):
        mean, spread = moments(x, index)
        found, around = moments(drawn, index)
        torch.testing.assert_close(found, mean, atol=0.2, rtol=0.05)
        close = torch.testing.assert_close
        close(around.diagonal(), spread.diagonal(), rtol=0.1, atol=0.1)
        if rank != 3:
            assert (around - spread).norm() < 0.1 * spread.norm()


def test_the_mean_field_knows_where_things_are():
    x = features()
    kept = FeatureStatistics(LAYOUT, 1, mean_field=True)
    kept.fit_category(0, x)
    drawn = kept.sample(torch.zeros(2000, dtype=torch.long))
    for found, expected in zip(
        LAYOUT.unflatten(drawn), LAYOUT.unflatten(x), strict=True
    ):
        torch.testing.assert_close(found.mean(0), expected.mean(0), atol=0.5, rtol=0.05)


def test_every_row_comes_from_its_category_and_its_component():
    kept = FeatureStatistics(LAYOUT, 2)
    apart = torch.cat([features(20), features(20) + 500])
    kept.fit_category(0, features() - 500)
    kept.fit_category(1, apart)
    categories = torch.tensor([0, 1, 0, 1]).repeat(50)
    x, component = kept.sample_level(0, categories, torch.zeros(200, dtype=torch.long))
    assert (x[categories == 0].mean(1) < -300).all()
    own = x[categories == 1].mean(1)
    which = component[categories == 1]
    assert len(which.unique()) == 2
    for one in which.unique():
        group = own[which == one]
        assert (group > 300).all() or (group < 200).all()


def test_the_same_generator_draws_the_same():
    kept = FeatureStatistics(LAYOUT, 3)
    kept.fit_category(0, features())
    categories = torch.zeros(5, dtype=torch.long)
    first, second = (
        kept.sample(categories, torch.Generator().manual_seed(4)) for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("covariance", "rank"),
    [("full", 0), ("low_rank", 2), ("low_rank", 7), ("diagonal", 0)],
)
def test_the_state_round_trips(covariance, rank):
    kept = FeatureStatistics(LAYOUT, 2, covariance, rank=rank, mean_field=True)
    kept.fit_category(0, features())
    kept.fit_category(3, features(seed=1))
    state = {f"statistics.{key}": value for key, value in kept.state_dict().items()}
    other = FeatureStatistics.like(LAYOUT, state)
    other.load_state_dict(kept.state_dict())
    assert other.categories.tolist() == [0, 3]
    categories = torch.tensor([0, 3])
    first, second = (
        found.sample(categories, torch.Generator().manual_seed(4))
        for found in (kept, other)
    )
    assert torch.equal(first, second)


def test_what_is_kept_is_what_the_sizes_say():
    def size(**options):
        kept = FeatureStatistics(LAYOUT, **options)
        kept.fit_category(0, features())
        return kept.bytes - 9  # without `known` and `images`

    # per component: a weight, a mean and a triangle, two bytes a number
    assert size(components=1) == 2 * (1 + 6 + 21 + 1 + 8 + 36)
    assert size(components=3) == 3 * size(components=1)
    assert size(components=1, precision="float32") == 2 * size(components=1)
    assert size(components=1, covariance="diagonal") == 2 * (1 + 12 + 1 + 16)
    low = size(components=1, covariance="low_rank", rank=2)
    assert low == size(components=1, covariance="diagonal") + 2 * (12 + 16)
    field = size(components=1, mean_field=True) - size(components=1)
    assert field == 2 * LAYOUT.size


def test_it_is_counted_as_statistics():
    assert FeatureStatistics.memory_kind in KINDS


@pytest.mark.parametrize("options", [{"covariance": "tied"}, {"precision": "int8"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=f"got '{next(iter(options.values()))}'"):
        FeatureStatistics(LAYOUT, **options)


def test_more_gaussians_than_feature_vectors_are_refused():
    kept = FeatureStatistics(LAYOUT, 20)
    with pytest.raises(TrainingError, match="20 Gaussians cannot be fitted to 16 feat"):
        kept.fit_category(0, features(1))
