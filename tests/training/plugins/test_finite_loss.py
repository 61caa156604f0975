import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.supervised import MER

from avalanche_ad.errors import TrainingError
from avalanche_ad.training.plugins import FiniteLossPlugin


class Break(SupervisedPlugin):
    """Plant a value at one step of one experience."""

    def __init__(self, experience, step, where):
        super().__init__()
        self.at = (experience, step)
        self.where = where

    def now(self, strategy):
        clock = strategy.clock
        return self.at == (clock.train_exp_counter, clock.train_exp_iterations)

    def before_training_iteration(self, strategy, **kwargs):
        if self.where != "loss" and self.now(strategy):
            strategy.mbatch[0][2, self.where] = float("nan")

    def before_backward(self, strategy, **kwargs):
        if self.where == "loss" and self.now(strategy):
            strategy.loss = strategy.loss + float("inf")


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("where", "culprit"),
    [
        (slice(0, 1), r"level 0, term inter, mutual_information, entropy, intra, lik"),
        (slice(24, 30), r"level 1, term inter, mutual_information, entropy, intra"),
        ("loss", r"what a plugin added to the loss"),
    ],
)
def test_the_run_stops_before_the_step_and_says_what_broke(
    stream, make_strategy, probe, where, culprit
):
    states = probe("before_training_iteration", lambda s: state_of(s.model))
    strategy = make_strategy(
        plugins=[states, Break(1, 4, where), FiniteLossPlugin()], train_mb_size=8
    )
    first, second = stream().train_stream
    strategy.train(first)
    with pytest.raises(
        TrainingError, match=rf"became (nan|inf) in experience 1, step 4 \({culprit}"
    ) as caught:
        strategy.train(second)
    assert "\n" not in str(caught.value)
    assert "lower the learning rate" in str(caught.value)
    for name, value in strategy.model.state_dict().items():
        assert torch.equal(value, states.seen[-1][name]), name


def test_a_loop_of_inner_updates_stops_after_the_iteration(
    stream, make_strategy, probe
):
    hooks = [probe(hook, id) for hook in ("after_backward", "before_update")]
    ends = probe("after_training_iteration", lambda s: s.clock.train_exp_iterations)
    strategy = make_strategy(
        MER,
        plugins=[*hooks, Break(1, 2, slice(0, 1)), FiniteLossPlugin(), ends],
        n_inner_steps=1,
        mem_size=8,
        batch_size_mem=2,
    )
    first, second = stream().train_stream
    strategy.train(first)
    with pytest.raises(TrainingError, match=r"nan in experience 1, step 2 \(the crit"):
        strategy.train(second)
    assert ends.seen == [*range(9), 0, 1]
    assert not any(hook.seen for hook in hooks)


def test_a_finite_loss_goes_on(stream, make_strategy):
    strategy = make_strategy(plugins=[FiniteLossPlugin()])
    for experience in stream().train_stream:
        strategy.train(experience)
    assert strategy.clock.train_exp_counter == 2
