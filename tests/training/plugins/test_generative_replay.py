"""The model of before the experience draws and labels what is rehearsed."""

import copy

import torch
from avalanche.training.plugins import GenerativeReplayPlugin

from avalanche_ad.training.plugins import SelfGenerativeReplayPlugin


def train(stream, make_strategy, probe, plugin, **options):
    batches = probe("before_forward", lambda s: (s.mb_x.clone(), s.mb_y.clone()))
    strategy = make_strategy(plugins=[plugin, batches], train_epochs=1, **options)
    first, second = stream().train_stream
    strategy.train(first)
    teacher = copy.deepcopy(strategy.model).eval()
    count = len(batches.seen)
    strategy.train(second)
    return strategy, teacher, batches.seen[:count], batches.seen[count:]


def test_samples_join_from_the_second_experience(stream, make_strategy, probe):
    plugin = SelfGenerativeReplayPlugin(replay_size=5)
    _, teacher, first, second = train(stream, make_strategy, probe, plugin)
    assert {len(x) for x, _ in first} == {8}
    assert {len(x) for x, _ in second} == {13}
    drawn = torch.cat([x[8:] for x, _ in second])
    labels = torch.cat([y[8:] for _, y in second])
    assert set(labels.tolist()) == {0, 1}
    with torch.no_grad():
        assert torch.equal(teacher(drawn).argmax(1), labels)
    own = torch.cat([y[:8] for _, y in second])
    assert set(own.tolist()) == {2, 3}


def test_samples_are_as_many_as_the_minibatch_by_default(stream, make_strategy, probe):
    plugin = SelfGenerativeReplayPlugin()
    _, _, _, second = train(stream, make_strategy, probe, plugin)
    assert {len(x) for x, _ in second} == {16}


def test_avalanches_own_labels_everything_0(stream, make_strategy, probe):
    plugin = GenerativeReplayPlugin(replay_size=5)
    _, _, _, second = train(stream, make_strategy, probe, plugin)
    assert {int(y) for _, labels in second for y in labels[8:]} == {0}
