"""What holds for every plugin that rehearses the flow's own samples."""

import copy

import dill
import pytest
import torch
from avalanche.training.supervised import Naive
from torch.optim import SGD

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.latents import latents_of
from avalanche_ad.training.plugins import (
    FlowGenerativeReplayPlugin,
    FunctionalRegularizationPlugin,
    LatentPseudoRehearsalPlugin,
)
from avalanche_ad.training.plugins.flow_rehearsal import even_categories, sample_pools

ACCURACY = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp00{}"
PLUGINS = {
    "generative": lambda: FlowGenerativeReplayPlugin(1.0, 8, 24),
    "functional": lambda: FunctionalRegularizationPlugin(300.0, 64, 512),
    "latent": lambda: LatentPseudoRehearsalPlugin(300.0, 64, 512),
}
every_plugin = pytest.mark.parametrize("name", PLUGINS)


def train(make_strategy, benchmark, plugins, tasks=2, **options):
    torch.manual_seed(1)
    strategy = make_strategy(plugins=plugins, **options)
    for experience in list(benchmark.train_stream)[:tasks]:
        strategy.train(experience)
    return strategy


def old_latents(model, benchmark):
    """Return the latents of the first experience's test images, one a level."""
    model.eval()
    x = torch.stack([item[0] for item in benchmark.test_stream[0].dataset])
    with torch.no_grad():
        return [level.z.clone() for level in latents_of(model(x)).levels]


def assert_same_values(one, other):
    for (name, value), again in zip(
        one.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(value, again), name


@every_plugin
def test_nothing_happens_in_the_first_experience(stream, make_strategy, name):
    plugin = PLUGINS[name]()
    with_it = train(make_strategy, stream(), [plugin], tasks=1)
    drawn = torch.rand(1)
    without = train(make_strategy, stream(), [], tasks=1)
    assert_same_values(with_it.model, without.model)
    assert torch.equal(drawn, torch.rand(1))  # not a number more was drawn
    assert plugin.learned == [0, 1]
    assert plugin.pool is None


@every_plugin
def test_the_pool_is_drawn_before_the_first_step(stream, make_strategy, probe, name):
    plugin = PLUGINS[name]()
    see_pool = probe("before_backward", lambda strategy: plugin.pool)
    strategy = train(make_strategy, stream(), [plugin, see_pool])
    steps = len(see_pool.seen) // 2
    assert see_pool.seen[:steps] == [None] * steps
    pools = see_pool.seen[steps:]
    assert all(pool is pools[0] is not None for pool in pools)
    assert plugin.pool is None
    assert plugin.learned == [0, 1, 2, 3]
    assert not any(module is plugin for module in strategy.model.modules())


@every_plugin
def test_the_loss_is_the_new_datas_plus_the_rehearsals(
    stream, make_strategy, probe, name
):
    plugin = PLUGINS[name]()
    added = []
    computed = plugin.rehearsal_loss

    def noted(strategy, pool):
        added.append(computed(strategy, pool))
        return added[-1]

    plugin.rehearsal_loss = noted
    before = probe("before_backward", lambda strategy: strategy.loss.detach().clone())
    after = probe("before_backward", lambda strategy: strategy.loss.detach().clone())
    train(make_strategy, stream(), [before, plugin, after])
    steps = len(before.seen) // 2
    assert len(added) == steps
    pairs = list(zip(before.seen, after.seen, strict=True))
    assert all(torch.equal(one, other) for one, other in pairs[:steps])
    for (one, other), loss in zip(pairs[steps:], added, strict=True):
        difference = (other - one).squeeze()
        torch.testing.assert_close(difference, loss.detach(), rtol=1e-3, atol=1e-3)
    assert max(abs(float(loss.detach())) for loss in added) > 0.1


@every_plugin
def test_it_keeps_the_first_experience(stream, make_strategy, name):
    benchmark = stream()
    accuracy, drift = {}, {}
    for key, plugins in {"naive": [], name: [PLUGINS[name]()]}.items():
        options = {"train_epochs": 30, "lr": 1e-2}
        torch.manual_seed(1)
        strategy = make_strategy(plugins=plugins, **options)
        strategy.train(benchmark.train_stream[0])
        before = old_latents(strategy.model, benchmark)
        strategy.train(benchmark.train_stream[1])
        after = old_latents(strategy.model, benchmark)
        drift[key] = sum(
            float((old - new).square().mean())
            for old, new in zip(before, after, strict=True)
        )
        results = strategy.eval(benchmark.test_stream)
        accuracy[key] = results[ACCURACY.format(0)]
        assert results[ACCURACY.format(1)] > 0.9
    assert accuracy[name] > 0.9 > accuracy["naive"] + 0.2
    assert drift[name] < drift["naive"] / 2


@every_plugin
def test_copies_go_on_alike(stream, make_strategy, name):
    """A checkpoint between experiences holds all that the next one needs."""
    benchmark = stream()
    models = []
    for copied in (
        lambda pair: pair,
        copy.deepcopy,
        lambda pair: dill.loads(dill.dumps(pair)),
    ):
        strategy = train(make_strategy, benchmark, [PLUGINS[name]()], tasks=1)
        model, plugin = copied((strategy.model, strategy.plugins[0]))
        again = make_strategy(model=model, plugins=[plugin])
        again.clock.train_exp_counter = 1
        torch.manual_seed(5)
        again.train(benchmark.train_stream[1])
        models.append(model)
    assert_same_values(models[0], models[1])
    assert_same_values(models[0], models[2])


@every_plugin
def test_copies_in_the_middle_of_training(stream, make_strategy, probe, name):
    plugin = PLUGINS[name]()
    copies = probe("after_backward", lambda _: (copy.deepcopy(plugin)).pool)
    train(make_strategy, stream(), [plugin, copies], train_epochs=1)
    assert copies.seen[0] is None
    assert copies.seen[-1] is not None


@every_plugin
def test_a_model_without_a_flow_is_refused(stream, name):
    model = torch.nn.Linear(30, 4)
    strategy = Naive(
        model=model,
        optimizer=SGD(model.parameters(), lr=0.1),
        criterion=torch.nn.CrossEntropyLoss(),
        plugins=[PLUGINS[name]()],
        evaluator=None,
    )
    with pytest.raises(TrainingError, match="FlowModel, got a Linear"):
        strategy.train(stream().train_stream[0])


def test_categories_are_even():
    assert even_categories([4, 1, 7], 7).tolist() == [4, 1, 7, 4, 1, 7, 4]
    assert even_categories([2], 3).tolist() == [2, 2, 2]


def test_pools_are_what_the_flow_maps_to_the_main_centres(make_model):
    model = make_model()
    model.add_categories([0, 1, 2])
    with torch.no_grad():  # a mixture whose inner Gaussians lie elsewhere
        for mixture in model.mixtures:
            mixture.centers[:, 1:] += 50
    pools = sample_pools(model, [0, 2], 4000)
    assert [len(samples.z) for samples in pools] == [4000, 4000]
    assert set(pools[0].positions.tolist()) == {0, 1, 2, 3}
    assert set(pools[1].positions.tolist()) == {0}
    for index, samples in enumerate(pools):
        assert samples.categories.bincount().tolist() == [2000, 0, 2000]
        condition = model.condition(index, samples.positions)
        z, _ = model.flows[index](samples.x, condition)
        torch.testing.assert_close(z, samples.z, rtol=1e-3, atol=1e-3)
        for category in (0, 2):
            own = samples.z[samples.categories == category]
            off = own - model.mixtures[index].centers[category, 0]
            assert float(off.mean(0).detach().abs().max()) < 0.1
            assert float((off.detach().square().mean() - 1).abs()) < 0.05
        assert not any(part.requires_grad for part in samples)


def test_minibatches_keep_rows_together(make_model):
    model = make_model()
    model.add_categories([0, 1])
    (samples, _) = sample_pools(model, [0, 1], 50)
    part = samples.draw(20)
    rows = [int((samples.z == z).all(1).nonzero()) for z in part.z]
    for whole, drawn in zip(samples, part, strict=True):
        assert torch.equal(whole[rows], drawn)
    assert len(set(rows)) > 5
