"""Stock strategies of Avalanche run unmodified on the flow-GMM."""

import copy

import pytest
import torch
from avalanche.training.supervised import (
    EWC,
    Cumulative,
    JointTraining,
    LwF,
    Naive,
    Replay,
)

from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    FiniteLossPlugin,
    GradientClippingPlugin,
    IntraClassWarmupPlugin,
    WarmupCosinePlugin,
)

STRATEGIES = {
    "naive": (Naive, {}),
    "cumulative": (Cumulative, {}),
    "joint": (JointTraining, {}),
    "replay": (Replay, {"mem_size": 12}),
    "ewc separate": (EWC, {"ewc_lambda": 1.0}),
    "ewc online": (EWC, {"ewc_lambda": 1.0, "mode": "online", "decay_factor": 0.5}),
    "lwf": (LwF, {"alpha": 1.0, "temperature": 2.0}),
}
ACCURACY = "Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp00{}"
LOSS = "Loss_Exp/eval_phase/test_stream/Task000/Exp00{}"


def aids():
    return [
        WarmupCosinePlugin(1.0),
        GradientClippingPlugin(100.0),
        IntraClassWarmupPlugin(1),
        FiniteLossPlugin(),
        CalibrationPlugin(),
    ]


@pytest.mark.parametrize("num_categories", [0, 4])
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_experiences(stream, make_strategy, make_model, name, num_categories):
    cls, options = STRATEGIES[name]
    model = make_model(num_categories)
    strategy = make_strategy(
        cls, model=model, plugins=aids(), train_epochs=15, lr=3e-2, **options
    )
    benchmark = stream()
    if cls is JointTraining:
        strategy.train(benchmark.train_stream)
        results = strategy.eval(benchmark.test_stream)
    else:
        for task, experience in enumerate(benchmark.train_stream):
            strategy.train(experience)
            results = strategy.eval(list(benchmark.test_stream)[: task + 1])
            assert results[ACCURACY.format(task)] > 0.9
            expected = list(range(2 * task + 2))
            assert model.known_categories.tolist() == expected
    assert model.known_categories.tolist() == [0, 1, 2, 3]
    assert results[ACCURACY.format(1)] > 0.9
    if name in ("cumulative", "joint", "replay"):
        assert results[ACCURACY.format(0)] > 0.9
    for task in (0, 1):
        assert torch.tensor(results[LOSS.format(task)]).isfinite()
    for parameter_name, parameter in model.named_parameters():
        assert bool(parameter.isfinite().all()), parameter_name

    # whatever was replaced while growing, the optimizer holds each parameter once
    held = [id(p) for g in strategy.optimizer.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    groups = strategy.optimizer.param_groups
    centers = {id(mixture.centers) for mixture in model.mixtures}
    assert [centers <= {id(p) for p in g["params"]} for g in groups] == [
        False,
        True,
        False,
    ]
    assert [group["weight_decay"] for group in groups] == [1e-4, 0, 0]
    copy.deepcopy(model)


@pytest.mark.parametrize("num_categories", [0, 4])
def test_all_that_should_train_does(stream, make_strategy, make_model, num_categories):
    model = make_model(num_categories)
    strategy = make_strategy(model=model)
    first, second = stream().train_stream
    strategy.train(first)
    before = {name: value.clone() for name, value in model.named_parameters()}
    strategy.train(second)
    for name, value in model.named_parameters():
        if not name.endswith("inner_logits"):  # of the category's own images alone
            old = before[name]
            assert not torch.equal(value[: len(old)], old), name
        else:
            assert float(value[2:].detach().abs().max()) > 0, name


def test_evaluating_the_future_changes_nothing(stream, make_strategy, make_model):
    benchmark = stream()
    model = make_model(4)
    strategy = make_strategy(model=model, plugins=[CalibrationPlugin()])
    strategy.train(benchmark.train_stream[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results = strategy.eval(benchmark.test_stream)
    assert results[ACCURACY.format(1)] == 0
    assert model.known_categories.tolist() == [0, 1]
    for name, value in model.state_dict().items():
        assert value.shape == before[name].shape, name
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


def test_growth_and_room_beforehand_train_alike(stream, make_strategy, make_model):
    outputs = []
    for room in (0, 4):
        torch.manual_seed(1)
        model = make_model(room)
        strategy = make_strategy(model=model)
        strategy.train(stream().train_stream[0])
        model.eval()
        outputs.append(model(torch.ones(1, model.layout.size))[:, :2])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_ewc_weighs_the_flow(stream, make_strategy, mode):
    decay = {"decay_factor": 0.5} if mode == "online" else {}
    strategy = make_strategy(EWC, ewc_lambda=1.0, mode=mode, **decay)
    strategy.train(stream().train_stream[0])
    ewc = strategy.plugins[0]
    importance = ewc.importances[0]
    for name, parameter in strategy.model.named_parameters():
        assert importance[name].data.shape == parameter.shape
    flow = [v.data for n, v in importance.items() if n.startswith("flows")]
    assert max(float(value.max()) for value in flow) > 0


def test_lwf_distils_the_old_categories(stream, make_strategy):
    strategy = make_strategy(LwF, alpha=1.0, temperature=2.0)
    strategy.train(stream().train_stream[0])
    lwf = strategy.plugins[0].lwf
    assert lwf.prev_classes_by_task[0] == {0, 1}
    x = torch.randn(4, strategy.model.layout.size)
    output = strategy.model(x)
    swapped = output[:, [1, 0, 2, 3]]
    near = lwf(x, output, strategy.model)
    far = lwf(x, swapped, strategy.model)
    assert float(near.detach()) < float(far.detach())
