import pytest
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Cumulative, JointTraining, Naive

from avalanche_ad.experiments.learning import _training_steps
from avalanche_ad.recipes import load_experiment
from avalanche_ad.training.plugins import (
    StepLimitPlugin,
    WarmupCosinePlugin,
)
from avalanche_ad.training.plugins.step_limit import limited_epochs


def test_whole_epochs_that_give_the_steps():
    assert limited_epochs(80, 10, categories=2, minibatches=4) == 5
    assert limited_epochs(80, 10, categories=2, minibatches=3) == 7
    assert limited_epochs(3, 10, categories=2, minibatches=3) == 3
    assert limited_epochs(3, 1, categories=1, minibatches=50) == 1
    assert limited_epochs(0, 10, categories=1, minibatches=5) == 0


def steps_of(strategy, experiences):
    """Return the steps of each experience."""
    found = []
    for experience in experiences:
        before = strategy.clock.train_iterations
        strategy.train(experience)
        found.append(strategy.clock.train_iterations - before)
    return found


@pytest.mark.parametrize(
    ("cls", "expected"),
    [(Naive, [12, 12]), (Cumulative, [12, 24])],
)
def test_every_category_gets_as_many_steps(stream, make_strategy, cls, expected):
    """Two categories and 24 images an experience, in minibatches of 8."""
    strategy = make_strategy(cls, plugins=[StepLimitPlugin(5)], train_epochs=9)
    assert steps_of(strategy, stream().train_stream) == expected
    assert strategy.train_epochs == 9


def test_joint_training_counts_all_categories(stream, make_strategy):
    strategy = make_strategy(
        JointTraining, plugins=[StepLimitPlugin(5)], train_epochs=9
    )
    assert steps_of(strategy, [stream().train_stream]) == [24]


def test_no_more_epochs_than_there_were_to_be(stream, make_strategy):
    strategy = make_strategy(plugins=[StepLimitPlugin(999)], train_epochs=2)
    assert steps_of(strategy, stream().train_stream) == [6, 6]


def test_the_schedule_ends_with_the_last_step(stream, make_strategy, probe):
    seen = probe("before_update", lambda s: s.optimizer.param_groups[0]["lr"])
    strategy = make_strategy(
        plugins=[StepLimitPlugin(5), WarmupCosinePlugin(0.0), seen],
        train_epochs=9,
        lr=1.0,
    )
    strategy.train(stream().train_stream[0])
    assert len(seen.seen) == 12
    assert seen.seen[0] == 1.0
    assert seen.seen[-1] < 0.05


def test_rehearsed_categories_do_not_lengthen_an_experience(stream, make_strategy):
    plugins = [StepLimitPlugin(5), ReplayPlugin(mem_size=12)]
    strategy = make_strategy(plugins=plugins, train_epochs=9)
    assert steps_of(strategy, stream().train_stream) == [12, 12]


@pytest.mark.parametrize("cls", [Naive, Cumulative])
def test_a_run_knows_its_steps_beforehand(stream, make_strategy, cls):
    settings = ["training.max_steps_per_category=5", "training.epochs=9"]
    recipe = load_experiment("synthetic_2x2", "naive", settings)
    benchmark = stream()
    strategy = make_strategy(cls, plugins=[StepLimitPlugin(5)], train_epochs=9)
    taken = steps_of(strategy, benchmark.train_stream)
    for first in (0, 1):
        planned = _training_steps(recipe, benchmark, strategy, first)
        assert planned == sum(taken[first:])
