"""What a learner is made of goes through pickle: models, criterion, plugins."""

import copy
import io
import pickle

import dill
import pytest
import torch
from avalanche.training.supervised import Naive

from avalanche_ad.training import (
    DynamicFeatureGMM,
    DynamicFlowGMM,
    DynamicPackNetFlowGMM,
    FlowGMMLoss,
    plugins,
)
from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    FitFeatureGMMPlugin,
    GMMAlignmentPlugin,
    IncrementalMixturePlugin,
    PackNetPlugin,
    StatisticsRehearsalPlugin,
)

MASK = (6, 6)
SMALL = {"couplings": 2, "condition_channels": 4, "centers_per_category": 2}
MADE = {
    "flow": (DynamicFlowGMM, SMALL, lambda: []),
    "aligned": (
        DynamicFlowGMM,
        SMALL,
        lambda: [
            IncrementalMixturePlugin(components=2, samples=200, every=2),
            StatisticsRehearsalPlugin(pool_size=8),
            GMMAlignmentPlugin(samples=200),
        ],
    ),
    "packnet": (DynamicPackNetFlowGMM, SMALL, lambda: [PackNetPlugin(0.5, 0.5)]),
    "feature": (DynamicFeatureGMM, {"components": 2}, lambda: [FitFeatureGMMPlugin()]),
}


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "torch.save": saved,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "dill": lambda model: dill.loads(dill.dumps(model)),
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(params=MADE)
def learner(request, layout, make_strategy, stream):
    made, options, own = MADE[request.param]
    model = made(layout, 4, **options)
    epochs = 0 if request.param == "feature" else 2
    strategy = make_strategy(
        Naive, model, [*own(), CalibrationPlugin()], train_epochs=epochs
    )
    strategy.untrained = copy.deepcopy(model)
    for experience in stream().train_stream:
        strategy.train(experience)
    return strategy


def test_a_model_goes_anywhere_before_and_after_training(learner, layout):
    x = torch.randn(5, layout.size)
    model, untrained = learner.model.eval(), learner.untrained.eval()
    for way, copied in WAYS.items():
        assert torch.equal(copied(untrained)(x), untrained(x)), way
        twin = copied(model)
        assert type(twin) is type(model)
        expected, found = model.score(model(x), MASK), twin.score(twin(x), MASK)
        assert torch.equal(found.maps, expected.maps), way
        assert torch.equal(found.category, expected.category), way


def test_a_model_in_the_middle_of_a_step_goes_too(layout, stream):
    model = DynamicFlowGMM(layout, 4, **SMALL)
    model.add_categories([0, 1])
    criterion, x = FlowGMMLoss(), torch.randn(4, layout.size)
    output = model.train()(x)
    criterion(output, torch.tensor([0, 1, 1, 0])).backward()
    assert model.features is not None
    for copied in WAYS.values():
        assert torch.equal(copied(model)(x), output)
        twin = copied(criterion)
        assert torch.equal(twin.terms, criterion.terms)


def test_criterion_and_plugins_of_a_learner_go_too(learner):
    for copied in WAYS.values():
        twin = copied(learner._criterion)
        assert len(twin.listeners) == len(learner._criterion.listeners)
        for plugin in learner.plugins:
            if type(plugin).__module__.startswith("avalanche_ad."):
                again = copied(plugin)
                assert type(again) is type(plugin)
                assert vars(again).keys() == vars(plugin).keys()


@pytest.mark.parametrize(
    "name", [name for name in plugins.__all__ if name.endswith("Plugin")]
)
def test_every_plugin_pickles(name):
    needed = {
        "PackNetPlugin": {"post_prune_share": 0.5, "prune_proportion": 0.5},
        "SelfGenerativeReplayPlugin": {"replay_size": 4},
        "SynapticIntelligencePlugin": {"si_lambda": 1.0},
        "FrozenFlowPlugin": {"share": 0.5},
        "StepLimitPlugin": {"steps": 5},
    }
    plugin = getattr(plugins, name)(**needed.get(name, {}))
    again = pickle.loads(pickle.dumps(plugin))
    assert vars(again).keys() == vars(plugin).keys()
