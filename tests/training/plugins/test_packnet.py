"""PackNet through the real loop: stock plugin, the project's, and what is refused."""

import copy
from types import SimpleNamespace

import dill
import pytest
import torch
from avalanche.models.packnet import PackNetPlugin as StockPlugin
from avalanche.training.supervised import JointTraining
from torch.optim import SGD, Adam

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.task_parameters import FREE
from avalanche_ad.training import DynamicPackNetFlowGMM
from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    FiniteLossPlugin,
    GradientClippingPlugin,
    IntraClassWarmupPlugin,
    PackNetPlugin,
    WarmupCosinePlugin,
)

ACCURACY = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp00{}"
MASK = (4, 4)
PLUGINS = {
    "stock": lambda: StockPlugin(2, 0.5),
    "stock, a list": lambda: StockPlugin(2, [0.5, 0.0]),
    "ours": lambda: PackNetPlugin(0.5, 0.5),
}


def aids():
    return [
        WarmupCosinePlugin(1.0),
        GradientClippingPlugin(100.0),
        IntraClassWarmupPlugin(1),
        FiniteLossPlugin(),
        CalibrationPlugin(mask_size=4),
    ]


@pytest.fixture
def make_packnet(layout):
    def make(num_categories=4, **options):
        small = {"couplings": 2, "condition_channels": 4, "centers_per_category": 3}
        return DynamicPackNetFlowGMM(layout, num_categories, **(small | options))

    return make


@pytest.fixture
def strategy_of(make_strategy):
    def make(model, plugin, make_optimizer=None, **options):
        strategy = make_strategy(
            model=model, plugins=[plugin, *aids()], **({"train_epochs": 6} | options)
        )
        if make_optimizer:
            strategy.optimizer = make_optimizer(model.parameters())
        return strategy

    return make


def scored(model, x, categories):
    """Per-category log-likelihoods and score maps, every bit of them."""
    model.eval()
    output = model(x)
    found = []
    for category in categories:
        chosen = torch.full((len(x),), category)
        found += model.log_likelihood_levels(latents_of(output), chosen)
        found.append(model.score(output, MASK, category=chosen).maps)
    return [tensor.detach().clone() for tensor in found]


OPTIMIZERS = {
    "the project's": None,
    "adam with decay": lambda p: Adam(p, lr=5e-3, weight_decay=0.1),
    "momentum with decay": lambda p: SGD(p, lr=1e-3, momentum=0.9, weight_decay=0.1),
}


@pytest.mark.parametrize("num_categories", [0, 4])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("plugin", PLUGINS)
def test_not_a_bit_of_an_old_task_moves(
    stream, make_packnet, strategy_of, plugin, optimizer, num_categories
):
    first, second = stream().train_stream
    model = make_packnet(num_categories)
    strategy = strategy_of(model, PLUGINS[plugin](), OPTIMIZERS[optimizer])
    x = torch.stack([item[0] for item in first.dataset])[::6]
    strategy.train(first)
    before = scored(model, x, (0, 1))
    flows = [p.detach().clone() for p in model.flows.parameters()]
    strategy.train(second)
    after = scored(model, x, (0, 1))
    assert len(before) == 6
    assert all(map(torch.equal, after, before))
    moved = [
        not torch.equal(new, old)
        for new, old in zip(model.flows.parameters(), flows, strict=True)
    ]
    assert any(moved)
    assert model.task_count == 2
    assert model.category_task.tolist() == [0, 0, 1, 1]


def test_the_optimizer_would_move_what_is_frozen(
    stream, make_packnet, make_strategy, probe
):
    first, second = stream().train_stream
    model = make_packnet()
    layer = model.flows[0].blocks[0].subnet[0]
    watch = probe("after_update", lambda _: layer.weight.detach()[layer.owner == 0])
    plugins = [PackNetPlugin(0.5, 0.5), watch]
    strategy = make_strategy(model=model, plugins=plugins)
    strategy.optimizer = OPTIMIZERS["adam with decay"](model.parameters())
    strategy.train(first)
    before = layer.weight.detach()[layer.owner == 0]
    watch.seen.clear()
    strategy.train(second)
    assert watch.seen
    assert not any(torch.equal(value, before) for value in watch.seen)
    assert torch.equal(layer.weight[layer.owner == 0], before)


@pytest.mark.parametrize("num_categories", [0, 4])
@pytest.mark.parametrize("plugin", ["stock", "ours"])
def test_tasks_are_inferred_and_nothing_is_forgotten(
    stream, make_packnet, strategy_of, plugin, num_categories
):
    benchmark = stream(train=40)
    model = make_packnet(num_categories)
    strategy = strategy_of(model, PLUGINS[plugin](), train_epochs=15, lr=3e-2)
    for task, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        results = strategy.eval(list(benchmark.test_stream)[: task + 1])
        assert model.known_categories.tolist() == list(range(2 * task + 2))
    assert results[ACCURACY.format(0)] > 0.9
    assert results[ACCURACY.format(1)] > 0.9
    assert bool(model.level_maximum.isfinite().all())
    copy.deepcopy(model)


def test_with_the_flow_alone_old_mixtures_move_and_old_latents_stay(
    stream, make_packnet, strategy_of
):
    model = make_packnet(own_mixtures=False)
    strategy = strategy_of(model, PLUGINS["ours"]())
    first, second = stream().train_stream
    strategy.train(first)
    x = torch.randn(3, model.layout.size)
    model.eval()

    def latents():
        found = latents_of(model(x))
        return [level.z.detach().clone() for level in found.tasks[0].levels]

    before, centers = latents(), model.mixtures[0].centers[:2].detach().clone()
    strategy.train(second)
    model.eval()
    assert all(map(torch.equal, before, latents()))
    moved = (model.mixtures[0].centers[:2] - centers).abs().amax((1, 2))
    assert bool((moved > 1e-4).all())


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_second_task_learns_what_it_owns(stream, make_packnet, strategy_of, plugin):
    first, second = stream().train_stream
    model = make_packnet()
    strategy = strategy_of(model, PLUGINS[plugin]())
    strategy.train(first)
    before = {name: value.clone() for name, value in model.named_parameters()}
    strategy.train(second)
    for name, value in model.named_parameters():
        moved = value != before[name]
        if name.endswith("weight"):
            owner = model.get_buffer(name.removesuffix("weight") + "owner")
            assert not bool(moved[owner == 0].any()), name
            assert bool(moved[owner > 0].any()), name
        elif name.startswith("flows"):
            first, second = model.get_buffer(name + "_of_tasks")
            assert torch.equal(first, before[name]), name
            assert torch.equal(second, value), name
            assert bool(moved.any()), name
        else:
            assert not bool(moved[:2].any()), name
            assert bool(moved[2:].any()), name


def test_an_evaluation_in_the_middle_of_training(stream, make_packnet, strategy_of):
    benchmark = stream()
    model = make_packnet()
    strategy = strategy_of(model, PackNetPlugin(0.5, 0.5), train_epochs=4, eval_every=1)
    first, second = benchmark.train_stream
    strategy.train(first, eval_streams=[benchmark.test_stream[:1]])
    x = torch.stack([item[0] for item in first.dataset])[::6]
    before = scored(model, x, (0, 1))
    strategy.train(second, eval_streams=[benchmark.test_stream])
    assert all(map(torch.equal, scored(model, x, (0, 1)), before))


def test_joint_training_is_one_task(stream, make_packnet, strategy_of, make_strategy):
    model = make_packnet(0)
    strategy = make_strategy(
        JointTraining,
        model=model,
        plugins=[PackNetPlugin(0.5, 0.5), *aids()],
        train_epochs=15,
        lr=3e-2,
    )
    benchmark = stream()
    strategy.train(benchmark.train_stream)
    results = strategy.eval(benchmark.test_stream)
    assert model.category_task.tolist() == [0, 0, 0, 0]
    assert results[ACCURACY.format(0)] > 0.9
    assert results[ACCURACY.format(1)] > 0.9


def test_without_the_plugin_all_is_one_task_like_the_plain_model(
    stream, make_packnet, make_model, make_strategy
):
    outputs = []
    for made in (make_packnet(), make_model()):
        torch.manual_seed(1)
        strategy = make_strategy(model=made)
        for experience in stream().train_stream:
            strategy.train(experience)
        outputs.append(made.eval()(torch.ones(2, made.layout.size)))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_training_goes_on_from_a_pickle_bit_for_bit(
    stream, make_packnet, strategy_of, plugin
):
    first, second = stream().train_stream
    model, made = make_packnet(0), PLUGINS[plugin]()
    strategy_of(model, made).train(first)
    states = []
    for learner, prunes in ((model, made), dill.loads(dill.dumps((model, made)))):
        torch.manual_seed(5)
        strategy_of(learner, prunes).train(second)
        states.append(learner.state_dict())
    ours, theirs = states
    assert ours is not theirs
    assert ours["frozen_tasks"] == 2
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value.nan_to_num(), theirs[name].nan_to_num()), name


@pytest.mark.parametrize(
    ("share", "epochs", "expected"),
    [(0.5, 2, 1), (0.5, 24, 12), (0.25, 200, 50), (0.0, 24, 1), (1.0, 24, 23)],
)
def test_the_epochs_are_divided_by_share(
    make_strategy, make_packnet, share, epochs, expected
):
    plugin = PackNetPlugin(share)
    plugin.before_training(make_strategy(model=make_packnet(), train_epochs=epochs))
    assert (plugin.post_prune_epochs, plugin.total_epochs) == (expected, epochs)
    assert plugin.post_prune_share == share


def test_pruning_comes_when_the_share_begins(
    stream, make_packnet, make_strategy, probe
):
    model = make_packnet()
    owner = model.flows[0].blocks[0].subnet[0]
    watch = probe("before_training_epoch", lambda _: int((owner.owner == FREE).sum()))
    strategy = make_strategy(
        model=model, plugins=[PackNetPlugin(0.25, 0.5), watch], train_epochs=4
    )
    strategy.train(stream().train_stream[0])
    assert watch.seen == [0, 0, 0, owner.weight.numel() // 2]
    assert int((owner.owner == 1).sum()) == owner.weight.numel() // 2


def test_the_optimizer_keeps_its_groups_and_forgets_its_moments(
    stream, make_packnet, make_strategy, probe
):
    model = make_packnet(0)
    watch = probe(
        "before_training_epoch",
        lambda s: (len(s.optimizer.state), s.clock.train_exp_epochs),
    )
    strategy = make_strategy(
        model=model, plugins=[PackNetPlugin(0.5, 0.5), watch], train_epochs=2
    )
    for experience in stream().train_stream:
        strategy.train(experience)
    count = len(list(model.parameters()))
    assert watch.seen == [(0, 0), (count, 1), (0, 0), (count, 1)]
    assert [g["weight_decay"] for g in strategy.optimizer.param_groups] == [1e-4, 0, 0]
    held = [id(p) for g in strategy.optimizer.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_what_cannot_be_pruned_is_refused(
    stream, make_model, make_packnet, make_strategy
):
    experience = stream().train_stream[0]
    strategy = make_strategy(model=make_model(), plugins=[PackNetPlugin()])
    with pytest.raises(TrainingError, match=r"DynamicFlowGMM: set \[model\] packnet"):
        strategy.train(experience)
    strategy = make_strategy(
        model=make_packnet(), plugins=[PackNetPlugin()], train_epochs=1
    )
    with pytest.raises(TrainingError, match="got 1 in all"):
        strategy.train(experience)


def test_a_category_of_a_frozen_task_is_refused(stream, make_packnet, strategy_of):
    first, _ = stream().train_stream
    strategy = strategy_of(make_packnet(), PackNetPlugin(0.5, 0.5))
    strategy.train(first)
    with pytest.raises(TrainingError, match=r"categories \[0, 1\] belong to tasks"):
        strategy.train(first)


def test_wrong_proportions_are_refused_before_they_are_needed(
    stream, make_packnet, make_strategy, probe
):
    for share in (-0.1, 1.5):
        with pytest.raises(TrainingError, match="share from 0 to 1"):
            PackNetPlugin(share)
    assert PackNetPlugin(0.5, 1).prune_proportion(0) == 1.0
    watch = probe("before_training_epoch", lambda s: s.clock.train_exp_counter)
    plugins = [PackNetPlugin(0.5, [0.5]), watch]
    strategy = make_strategy(model=make_packnet(), plugins=plugins, train_epochs=2)
    with pytest.raises(TrainingError, match="none for experience 1; give one each"):
        strategy.train(stream().train_stream[0])
    assert not watch.seen
    # where the stream is unknown, the experience that has none
    strategy.experience = SimpleNamespace()
    plugins[0].before_training_exp(strategy)
    strategy.clock.train_exp_counter = 1
    with pytest.raises(TrainingError, match="none for experience 1; give one each"):
        plugins[0].before_training_exp(strategy)


def test_joint_training_needs_one_proportion(stream, make_packnet, make_strategy):
    model = make_packnet(0)
    plugins = [PackNetPlugin(0.5, [0.5])]
    strategy = make_strategy(
        JointTraining, model=model, plugins=plugins, train_epochs=2
    )
    strategy.train(stream().train_stream)
    assert model.task_count == 1
