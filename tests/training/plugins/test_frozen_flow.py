import copy

import dill
import pytest
import torch
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GEMPlugin,
    LwFPlugin,
    MIRPlugin,
    ReplayPlugin,
)
from avalanche.training.supervised import Naive
from torch.optim import SGD, AdamW

from avalanche_ad.errors import TrainingError
from avalanche_ad.training.plugins import (
    FrozenFlowPlugin,
    GradientClippingPlugin,
    SynapticIntelligencePlugin,
)
from avalanche_ad.training.plugins.frozen_flow import bottom_blocks

ACCURACY = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp00{}"


def values(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def flow_names(model, blocks):
    return {
        name
        for name, _ in model.named_parameters()
        if any(f".blocks.{block}." in name for block in blocks)
    }


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, set()),
        (0.01, {0}),
        (0.25, {0}),
        (0.5, {0, 1}),
        (0.75, {0, 1, 2}),
        (1.0, {0, 1, 2, 3}),
    ],
)
def test_the_bottom_is_next_to_the_data(make_model, share, expected):
    model = make_model(couplings=4)
    found = {id(block) for block in bottom_blocks(model, share)}
    for flow in model.flows:
        own = {i for i, block in enumerate(flow.blocks) if id(block) in found}
        assert own == expected
    # the data enters the first block: a change there leaves the last block's own map
    seen = []
    flow = model.flows[0]
    for block in flow.blocks:
        block.register_forward_hook(lambda module, *_: seen.append(module))
    flow(torch.randn(3, 6), torch.zeros(3, 4))
    assert seen == list(flow.blocks)


BESIDE = {
    "nothing": [],
    "clipping": [GradientClippingPlugin(1.0)],
    "ewc": [EWCPlugin(ewc_lambda=10.0)],
    "lwf": [LwFPlugin(alpha=1.0, temperature=2.0)],
    "replay": [ReplayPlugin(mem_size=8)],
    "gem": [GEMPlugin(patterns_per_experience=4, memory_strength=0.5)],
    "si": [SynapticIntelligencePlugin(si_lambda=1.0)],
    "agem": [AGEMPlugin(patterns_per_experience=4, sample_size=4)],
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_frozen_blocks_stay_bit_identical(stream, make_strategy, beside, share):
    # copies, since these hold what they have seen
    plugins = [FrozenFlowPlugin(share), *copy.deepcopy(BESIDE[beside])]
    strategy = make_strategy(plugins=plugins)
    first, second = stream().train_stream
    model = strategy.model
    initial = values(model)
    strategy.train(first)
    learned = values(model)
    assert flow_names(model, (0, 1)) <= changed(initial, learned)

    strategy.train(second)
    moved = changed(learned, values(model))
    frozen = (0,) if share == 0.5 else (0, 1)
    free = {0, 1} - set(frozen)
    assert not moved & flow_names(model, frozen)
    assert flow_names(model, free) <= moved
    assert any(name.endswith(".centers") for name in moved)  # mixtures go on


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (AdamW, {"lr": 1e-2, "weight_decay": 0.1}),
        (SGD, {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1}),
    ],
)
def test_momentum_and_decay_leave_them_alone(
    stream, make_strategy, make_model, kind, options
):
    model = make_model()
    strategy = make_strategy(model=model, plugins=[FrozenFlowPlugin()])
    strategy.optimizer = kind(model.parameters(), **options)
    first, second = stream().train_stream
    strategy.train(first)
    learned = values(model)
    held = [p for group in strategy.optimizer.param_groups for p in group["params"]]
    buffers = ("exp_avg", "momentum_buffer")
    assert any(key in strategy.optimizer.state[held[0]] for key in buffers)
    strategy.train(second)
    assert not changed(learned, values(model)) & flow_names(model, (0, 1))


@pytest.mark.parametrize(("after", "trained"), [(-1, []), (0, [0]), (1, [0, 1])])
def test_it_freezes_after_the_given_experience(stream, make_strategy, after, trained):
    strategy = make_strategy(plugins=[FrozenFlowPlugin(after_experience=after)])
    names = flow_names(strategy.model, (0, 1))
    seen = []
    for task, experience in enumerate(stream().train_stream):
        before = values(strategy.model)
        strategy.train(experience)
        if changed(before, values(strategy.model)) & names:
            seen.append(task)
    assert seen == trained


def test_a_resumed_run_stays_frozen(stream, make_strategy):
    benchmark = stream()
    strategy = make_strategy(plugins=[FrozenFlowPlugin()])
    strategy.train(benchmark.train_stream[0])
    model, plugin = dill.loads(dill.dumps((strategy.model, strategy.plugins[0])))
    assert (plugin.share, plugin.after_experience) == (1.0, 0)
    again = make_strategy(model=model, plugins=[plugin])
    again.clock.train_exp_counter = 1
    learned = values(model)
    again.train(benchmark.train_stream[1])
    assert not changed(learned, values(model)) & flow_names(model, (0, 1))
    copy.deepcopy(again.model)


def test_a_frozen_flow_keeps_the_first_experience(stream, make_strategy):
    benchmark = stream()
    accuracy = {}
    for name, plugins in {"naive": [], "frozen": [FrozenFlowPlugin()]}.items():
        torch.manual_seed(0)
        strategy = make_strategy(plugins=plugins, train_epochs=15, lr=3e-2)
        for experience in benchmark.train_stream:
            strategy.train(experience)
        results = strategy.eval(benchmark.test_stream)
        accuracy[name] = results[ACCURACY.format(0)]
    assert accuracy["frozen"] > 0.9 > accuracy["naive"] + 0.2


def test_what_needs_every_gradient_is_refused_at_once(stream, make_strategy, probe):
    watch = probe("before_training_epoch", lambda s: s.clock.train_exp_counter)
    mir = MIRPlugin(batch_size_mem=4, mem_size=16, subsample=6)
    first, second = stream().train_stream
    strategy = make_strategy(plugins=[FrozenFlowPlugin(0.5), mir, watch])
    with pytest.raises(TrainingError, match="cannot go with MIRPlugin") as caught:
        strategy.train(first)
    assert "\n" not in str(caught.value)
    assert not watch.seen

    # Where nothing is frozen they go together; if the last line fails, Avalanche's MIR
    # has learned to do without a gradient and need not be refused. It replays the
    # category that is not in the last minibatch, here of one image.
    strategy = make_strategy(plugins=[FrozenFlowPlugin(0.0), mir], train_mb_size=23)
    strategy.train(first)
    assert mir.replay_loader is not None
    bottom_blocks(strategy.model, 0.5)[0].requires_grad_(False)
    with pytest.raises(RuntimeError, match="does not require grad"):
        strategy.train(second)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(share):
    with pytest.raises(TrainingError, match=r"share of the blocks in \[0, 1\]"):
        FrozenFlowPlugin(share)


def test_a_model_without_a_flow_is_refused(stream, make_strategy):
    model = torch.nn.Linear(30, 4)
    strategy = Naive(
        model=model,
        optimizer=SGD(model.parameters(), lr=0.1),
        criterion=torch.nn.CrossEntropyLoss(),
        plugins=[FrozenFlowPlugin(after_experience=-1)],
        evaluator=None,
    )
    with pytest.raises(TrainingError, match="FlowModel, got a Linear"):
        strategy.train(stream().train_stream[0])
