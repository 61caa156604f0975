"""What Avalanche's strategies take for granted and a flow-GMM has to offer."""

import copy
import gc

import dill
import pytest
import torch
from avalanche.training.plugins import (
    FeatureDistillationPlugin,
    FromScratchTrainingPlugin,
    GDumbPlugin,
    MASPlugin,
)
from avalanche.training.supervised import DER
from torch.nn import functional as F

from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.training.plugins import CalibrationPlugin


def state(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def at_the_start(probe):
    """Note the parameters before the first step of every experience."""
    return probe("before_training_epoch", lambda strategy: state(strategy.model))


def test_from_scratch_starts_at_the_initial_parameters(
    stream, make_strategy, make_model, probe
):
    initial = state(make_model())
    starts = at_the_start(probe)
    plugins = [FromScratchTrainingPlugin(reset_optimizer=False), starts]
    strategy = make_strategy(plugins=plugins, train_epochs=1)
    for experience in stream().train_stream:
        strategy.train(experience)
    assert len(starts.seen) == 2
    for seen in starts.seen:
        for name, value in initial.items():
            assert torch.equal(seen[name], value), name
    assert strategy.model.known_categories.tolist() == [0, 1, 2, 3]
    for mixture in strategy.model.mixtures:
        centers = initial["mixtures.0.centers"][:, 0]
        # no centre was zeroed, and no two are the same
        assert bool((torch.cdist(centers, centers) + 2 * torch.eye(4) > 1).all())
        assert not torch.equal(mixture.centers[:, 0], centers)


def test_gdumb_trains_the_new_model(stream, make_strategy, probe):
    starts = at_the_start(probe)
    strategy = make_strategy(plugins=[GDumbPlugin(mem_size=8), starts], train_epochs=1)
    first, second = stream().train_stream
    strategy.train(first)
    old = strategy.model
    strategy.train(second)
    assert strategy.model is not old
    for name, value in starts.seen[0].items():
        assert torch.equal(starts.seen[1][name], value), name
    held = {id(p) for g in strategy.optimizer.param_groups for p in g["params"]}
    assert held == {id(parameter) for parameter in strategy.model.parameters()}
    for name, value in strategy.model.named_parameters():
        assert not torch.equal(value, starts.seen[1][name]), name


def test_categories_to_come_add_nothing_to_mas(stream, make_strategy, make_model):
    found = []
    for room in (2, 4):
        torch.manual_seed(1)
        strategy = make_strategy(model=make_model(room), plugins=[MASPlugin()])
        strategy.train(stream().train_stream[0])
        found.append(strategy.plugins[0].importance)
    for name, value in found[0].items():
        twin = found[1][name].data
        # the inner weights take no part in the outputs
        assert bool(value.data.any()) != name.endswith("inner_logits"), name
        torch.testing.assert_close(twin[: len(value.data)], value.data)
        assert not twin[len(value.data) :].any()


def test_der_remembers_outputs_that_mean_something(stream, make_strategy, make_model):
    model = make_model(4, categories_at_start=True)
    strategy = make_strategy(
        DER, model=model, mem_size=12, batch_size_mem=6, plugins=[CalibrationPlugin()]
    )
    losses = []
    backward = strategy.backward

    def note():
        losses.append(float(strategy.loss.detach()))
        backward()

    strategy.backward = note
    benchmark = stream()
    for experience in benchmark.train_stream:
        strategy.train(experience)
    logits = torch.stack([item[-1] for item in strategy.storage_policy.buffer])
    assert logits.shape == (12, 4)
    assert float(logits.min()) > MASKED / 10
    assert max(losses) < 1e4
    results = strategy.eval(benchmark.test_stream)
    assert all(torch.tensor(v).isfinite() for v in results.values())


def test_a_category_never_learned_is_scored_by_the_largest_constant(
    stream, make_strategy, make_model
):
    model = make_model(4, categories_at_start=True)
    strategy = make_strategy(model=model, plugins=[CalibrationPlugin()])
    strategy.train(stream().train_stream[0])
    assert model.known_categories.tolist() == [0, 1, 2, 3]
    assert model.level_maximum[2:].isnan().all()
    model.eval()
    output = model(torch.randn(3, model.layout.size))
    scores = model.score(output, (4, 4), category=torch.tensor([3, 3, 3]))
    assert bool(scores.maps.isfinite().all())
    model.level_maximum[2:] = model.level_maximum[:2].amax(0)
    again = model.score(output, (4, 4), category=torch.tensor([3, 3, 3]))
    assert torch.equal(scores.maps, again.maps)


def test_features_are_the_mean_latents(make_model):
    model = make_model()
    model.add_categories([0, 1])
    x = torch.randn(3, model.layout.size)
    levels = model.layout.unflatten(x)
    expected = torch.cat(
        [model.latent_level(i, level)[0].mean(1) for i, level in enumerate(levels)], 1
    )
    output = model(x)
    assert model.features.requires_grad
    torch.testing.assert_close(model.features, expected)
    assert output.shape == (3, 4)


def test_features_hold_no_graph(make_model):
    model = make_model()
    model.add_categories([0, 1])
    x = torch.randn(3, model.layout.size)
    output = model(x)
    twin, pickled = copy.deepcopy(model), dill.loads(dill.dumps(model._mean_latents))
    assert twin.features is None
    assert pickled.read() is None
    del output
    gc.collect()
    assert model.features is None
    with torch.no_grad():
        model(x)
    assert model.features.shape == (3, 12)
    assert not model.features.requires_grad


def test_feature_distillation_by_hand(stream, make_strategy, probe):
    plugin = FeatureDistillationPlugin(alpha=3.0, mode="cosine")

    def look(strategy):
        if plugin.prev_model is None:
            return None
        before = strategy._criterion(strategy.mb_output, strategy.mb_y)
        with torch.no_grad():
            plugin.prev_model(strategy.mb_x)
        old, new = plugin.prev_model.features, strategy.model.features
        distance = 1 - F.cosine_similarity(new, old).mean()
        return float((strategy.loss - before).detach()), 3.0 * float(distance.detach())

    added = probe("before_backward", look)
    strategy = make_strategy(plugins=[plugin, added])
    for experience in stream().train_stream:
        strategy.train(experience)
    found = [pair for pair in added.seen if pair is not None]
    assert len(found) == 9
    for ours, expected in found:
        assert ours == pytest.approx(expected, abs=1e-4)
    assert found[-1][1] > 1e-3
