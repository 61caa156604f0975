"""Rehearsal and regularisation by feature statistics, and what they share."""

import copy

import pytest
import torch
from avalanche.training.plugins import EWCPlugin, ReplayPlugin

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians import FeatureStatistics
from avalanche_ad.models.latents import latents_of
from avalanche_ad.training.plugins import (
    DriftRegularizationPlugin,
    GMMAlignmentPlugin,
    StatisticsRehearsalPlugin,
)

PLUGINS = [StatisticsRehearsalPlugin, DriftRegularizationPlugin]


def trained(make_strategy, stream, *plugins):
    torch.manual_seed(0)
    strategy = make_strategy(plugins=list(plugins), lr=2e-2)
    for experience in stream.train_stream:
        strategy.train(experience)
    return strategy


@pytest.fixture
def forgotten(make_strategy, images, likelihood):
    """Give by how much the likelihood of the first two categories fell."""

    def make(stream, *plugins):
        torch.manual_seed(0)
        strategy = make_strategy(plugins=list(plugins), lr=2e-2)
        values = []
        for experience in stream.train_stream:
            strategy.train(experience)
            model = strategy.model
            values.append(sum(likelihood(model, images(stream, c), c) for c in (0, 1)))
        return values[0] - values[1]

    return make


def test_rehearsal_forgets_less(forgotten, long):
    naive = forgotten(long)
    assert naive > 0
    for form in ("full", "place"):
        plugin = StatisticsRehearsalPlugin(components=1, statistics=form)
        assert forgotten(long, plugin) < 0.5 * naive


def test_regularisation_holds_the_flow_where_old_features_lie(
    make_strategy, long, images
):
    def moved(*plugins):
        torch.manual_seed(0)
        strategy = make_strategy(plugins=list(plugins), lr=2e-2)
        one, two = long.train_stream
        x = torch.cat([images(long, category) for category in (0, 1)])
        strategy.train(one)
        before = [z.z for z in latents_of(strategy.model.eval()(x)).levels]
        strategy.train(two)
        after = [z.z for z in latents_of(strategy.model.eval()(x)).levels]
        return sum(
            float((a - b).detach().square().mean())
            for a, b in zip(after, before, strict=True)
        )

    assert moved(DriftRegularizationPlugin(components=1)) < 0.5 * moved()


def test_a_flow_that_has_not_moved_pays_nothing(make_strategy, long, fake_strategy):
    plugin = DriftRegularizationPlugin(alpha=1.0, components=1, pool_size=64)
    strategy = make_strategy(plugins=[plugin])
    strategy.train(long.train_stream[0])
    plugin.before_training_exp(strategy)
    fake = fake_strategy(model=strategy.model, loss=torch.zeros(()))
    plugin.before_backward(fake)
    assert float(fake.loss.detach()) < 1e-8
    other = copy.deepcopy(strategy.model)
    with torch.no_grad():
        other.flows[0].blocks[-1].global_offset += 1
    fake = fake_strategy(model=other, loss=torch.zeros(()))
    plugin.before_backward(fake)
    assert float(fake.loss.detach()) > 1e-3


def test_the_loss_of_rehearsal_is_the_criterion_s(make_strategy, long, fake_strategy):
    plugin = StatisticsRehearsalPlugin(4, alpha=2.0, components=1, pool_size=4)
    strategy = make_strategy(plugins=[plugin])
    strategy.train(long.train_stream[0])
    plugin.before_training_exp(strategy)
    x, y = plugin.pool
    assert y.tolist() == [0, 1, 0, 1]
    model = strategy.model.train()
    criterion = strategy._criterion
    fake = fake_strategy(model=model, loss=torch.zeros(()), _criterion=criterion)
    torch.manual_seed(3)
    plugin.before_backward(fake)
    torch.manual_seed(3)
    rows = torch.randint(4, (4,))
    expected = 2 * criterion(model(x[rows]), y[rows])
    torch.testing.assert_close(fake.loss, expected)


@pytest.mark.parametrize("cls", PLUGINS)
def test_nothing_is_kept_but_statistics(make_strategy, long, cls):
    plugin = cls(components=1)
    strategy = trained(make_strategy, long, plugin)
    assert not plugin.pool
    assert strategy.model.alignment.statistics.categories.tolist() == [0, 1, 2, 3]


def test_several_share_the_statistics(make_strategy, long, monkeypatch):
    fitted = []
    fit = FeatureStatistics.fit_category

    def noted(self, category, x):
        fitted.append(category)
        fit(self, category, x)

    monkeypatch.setattr(FeatureStatistics, "fit_category", noted)
    plugins = [cls(components=1) for cls in (*PLUGINS, GMMAlignmentPlugin)]
    trained(make_strategy, long, *plugins)
    assert fitted == [0, 1, 2, 3]


@pytest.mark.parametrize("cls", PLUGINS)
@pytest.mark.parametrize(
    "other", [lambda: EWCPlugin(ewc_lambda=1.0), lambda: ReplayPlugin(mem_size=8)]
)
def test_they_go_with_stock_plugins(make_strategy, long, cls, other):
    model = trained(make_strategy, long, cls(components=1), other()).model
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("cls", PLUGINS)
def test_another_model_is_refused(fake_strategy, cls):
    with pytest.raises(TrainingError, match=f"{cls.__name__} keeps statistics with"):
        cls().before_training_exp(fake_strategy(model=torch.nn.Linear(1, 1)))


def test_statistics_of_few_images_give_way_to_those_of_more(make_model):
    model, plugin = make_model(), StatisticsRehearsalPlugin(components=1)
    x = torch.randn(40, 30)
    plugin.keep(model, {1: x[:3]})
    few = model.alignment.statistics.means_0[1].clone()
    plugin.keep(model, {0: x, 1: x})
    assert model.alignment.statistics.images.tolist() == [40, 40]
    assert not torch.equal(model.alignment.statistics.means_0[1], few)
    many = model.alignment.statistics.means_0[1].clone()
    plugin.keep(model, {1: x[20:]})
    assert torch.equal(model.alignment.statistics.means_0[1], many)
