import copy

import pytest
import torch
from avalanche.training.supervised import Naive

from avalanche_ad.training.plugins import FeatureStatisticsReplayPlugin
from avalanche_ad.training.plugins.feature_statistics_replay import GaussianStatistics


def test_a_sample_is_of_the_mean_the_modes_and_what_is_left():
    torch.manual_seed(0)
    x = torch.randn(50, 3) @ torch.randn(3, 8) + 0.1 * torch.randn(50, 8) + 5
    for rank in (0, 2, 8):
        kept = GaussianStatistics(rank)
        kept.update(x)
        drawn = kept.sample(100_000)
        assert torch.allclose(drawn.mean(0), x.mean(0), atol=0.05)
        covariance = torch.cov(x.T, correction=0)
        values, vectors = torch.linalg.eigh(covariance)
        modes = (vectors * values.clamp(min=0).sqrt())[:, len(values) - rank :]
        expected = modes @ modes.T
        expected += torch.diag((covariance - expected).diagonal())
        found = torch.cov(drawn.T, correction=0)
        assert torch.allclose(found, expected, atol=0.1)


def test_parts_give_what_all_at_once_give():
    x = torch.randn(30, 2, 3, dtype=torch.float64)
    whole, parts = GaussianStatistics(6), GaussianStatistics(6)
    whole.update(x)
    for part in x.split([1, 9, 20]):
        parts.update(part)
    for name in ("mean", "variance"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name))
    first, second = (one.modes.flatten(1) for one in (whole, parts))
    assert torch.allclose(first.T @ first, second.T @ second)


def test_earlier_categories_are_replayed_and_current_ones_are_not(
    stream, make_strategy
):
    plugin = FeatureStatisticsReplayPlugin(batch_size=8, rank=2)
    seen = []
    draw = plugin.draw
    plugin.draw = lambda known, count: seen.append(known) or draw(known, count)
    strategy = make_strategy(Naive, plugins=[plugin], train_epochs=1)
    first, second = stream().train_stream
    strategy.train(first)
    assert not seen
    strategy.train(second)
    old = sorted(first.classes_in_this_experience)
    assert seen
    assert all(known == old for known in seen)
    assert sorted(plugin.statistics) == sorted(
        [*old, *second.classes_in_this_experience]
    )
    images = sum(own.count for own in plugin.statistics.values())
    assert images == len(first.dataset) + len(second.dataset)


def test_the_loss_is_alpha_times_that_of_the_draws(stream, make_strategy):
    runs = []
    for alpha in (0.0, 1.0):
        torch.manual_seed(0)
        plugin = FeatureStatisticsReplayPlugin(batch_size=4, rank=2, alpha=alpha)
        strategy = make_strategy(Naive, plugins=[plugin], train_epochs=2)
        for experience in stream().train_stream:
            strategy.train(experience)
        runs.append(copy.deepcopy(strategy.model.state_dict()))
    assert any(not torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_fitting_draws_no_numbers(stream, make_strategy):
    after = []
    for plugins in ([], [FeatureStatisticsReplayPlugin()]):
        torch.manual_seed(0)
        strategy = make_strategy(Naive, plugins=plugins, train_epochs=1)
        strategy.train(stream().train_stream[0])
        after.append(torch.rand(1))
    assert after[0] == after[1]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_classes_are_drawn_evenly(count):
    plugin = FeatureStatisticsReplayPlugin(rank=1)
    for label in (2, 5, 7):
        plugin.statistics[label] = GaussianStatistics(1)
        plugin.statistics[label].update(torch.full((2, 3), float(label)))
    x, y = plugin.draw([2, 5, 7], count)
    assert torch.equal(x, y[:, None].float().expand(-1, 3))
    assert y.bincount(minlength=8)[[2, 5, 7]].max() <= -(-count // 3)


@pytest.mark.parametrize("wrong", [{"rank": -1}, {"batch_size": 0}])
def test_sizes_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 1 and rank of at least 0, got"):
        FeatureStatisticsReplayPlugin(**wrong)
