import pytest
import torch
from avalanche.training.plugins import EWCPlugin, LwFPlugin, ReplayPlugin
from torch.optim import AdamW

from avalanche_ad.errors import TrainingError
from avalanche_ad.training.plugins import CenterFreezePlugin, GradientClippingPlugin


def old_rows(model):
    return {
        name: value[:2].clone()
        for name, value in model.state_dict().items()
        if name.startswith("mixtures") and "known" not in name
    }


@pytest.mark.parametrize(
    "others",
    [
        list,
        lambda: [ReplayPlugin(mem_size=8)],
        lambda: [LwFPlugin(), EWCPlugin(ewc_lambda=1.0)],
        lambda: [GradientClippingPlugin(1.0)],
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_earlier_mixtures_stay_and_the_rest_learns(
    make_strategy, stream, others, first
):
    own = [CenterFreezePlugin()]
    strategy = make_strategy(plugins=own + others() if first else others() + own)
    one, two = stream().train_stream
    before = old_rows(strategy.model)
    strategy.train(one)
    learned = old_rows(strategy.model)
    assert all(not torch.equal(before[name], learned[name]) for name in before)
    state = {k: v.clone() for k, v in strategy.model.state_dict().items()}
    strategy.train(two)
    for name, value in old_rows(strategy.model).items():
        assert torch.equal(value, learned[name]), name
    moved = {
        name
        for name, value in strategy.model.state_dict().items()
        if not torch.equal(value, state[name])
    }
    assert any(name.startswith("flows") for name in moved)
    for part in ("centers", "class_logits", "inner_logits"):
        assert f"mixtures.0.{part}" in moved


def test_momentum_and_weight_decay_move_nothing(make_strategy, make_model, stream):
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    strategy = make_strategy(model=model, plugins=[CenterFreezePlugin()])
    strategy.optimizer = optimizer
    one, two = stream().train_stream
    strategy.train(one)
    learned = old_rows(model)
    strategy.train(two)
    assert all(torch.equal(v, learned[k]) for k, v in old_rows(model).items())


def test_without_it_they_move(make_strategy, stream):
    strategy = make_strategy()
    one, two = stream().train_stream
    strategy.train(one)
    learned = old_rows(strategy.model)
    strategy.train(two)
    found = old_rows(strategy.model)
    assert any(not torch.equal(found[name], learned[name]) for name in found)


def test_another_model_is_refused(fake_strategy):
    with pytest.raises(
        TrainingError, match="holds the centres of a (FlowModel|ScopedEntropy), got a"
    ):
        CenterFreezePlugin().before_training_exp(
            fake_strategy(model=torch.nn.Linear(1, 1))
        )
