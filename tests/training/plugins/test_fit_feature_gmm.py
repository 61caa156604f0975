import pytest
import torch
from avalanche.training.supervised import Cumulative, JointTraining, Naive

from avalanche_ad.errors import TrainingError
from avalanche_ad.models import FeatureGMM
from avalanche_ad.training import DynamicFeatureGMM
from avalanche_ad.training.plugins import CalibrationPlugin, FitFeatureGMMPlugin


@pytest.fixture
def fitted(monkeypatch):
    """Note every fit: category and number of images."""
    calls = []
    fit = FeatureGMM.fit_category

    def noted(self, category, features):
        calls.append((category, len(features)))
        fit(self, category, features)

    monkeypatch.setattr(FeatureGMM, "fit_category", noted)
    return calls


@pytest.mark.parametrize("room", [0, 4])
@pytest.mark.parametrize("cls", [Naive, Cumulative, JointTraining])
def test_every_category_is_fitted_once(
    stream, make_strategy, layout, fitted, room, cls
):
    benchmark = stream()
    model = DynamicFeatureGMM(layout, room)
    strategy = make_strategy(
        cls,
        model=model,
        plugins=[FitFeatureGMMPlugin(), CalibrationPlugin()],
        train_epochs=0,
    )
    if cls is JointTraining:
        strategy.train(benchmark.train_stream)
    else:
        for experience in benchmark.train_stream:
            strategy.train(experience)
    if cls is Naive:
        strategy.train(benchmark.train_stream[0])  # comes again, is known
    assert sorted(fitted) == [(category, 12) for category in range(4)]
    results = strategy.eval(benchmark.test_stream)
    assert results["Top1_Acc_Stream/eval_phase/test_stream/Task000"] > 0.95
    x = torch.stack([item[0] for item in benchmark.test_stream[0].dataset])
    assert bool(model.score(model(x), (4, 4)).image.isfinite().all())


def test_features_are_those_of_the_category(stream, make_strategy, layout):
    experience = stream().train_stream[1]
    model = DynamicFeatureGMM(layout)
    strategy = make_strategy(
        model=model, plugins=[FitFeatureGMMPlugin()], train_epochs=0
    )
    strategy.train(experience)
    assert model.known_categories.tolist() == [2, 3]
    by_hand = FeatureGMM(layout)
    x = torch.stack([item[0] for item in experience.dataset])
    by_hand.fit_category(2, x[:12])
    torch.testing.assert_close(model.mixtures[0].means[2], by_hand.mixtures[0].means[2])


def test_a_category_is_fitted_anew_when_more_images_come(
    stream, make_strategy, layout, fitted
):
    few, many = stream(train=3).train_stream[0], stream().train_stream[0]
    model = DynamicFeatureGMM(layout)
    plugins = [FitFeatureGMMPlugin()]
    strategy = make_strategy(model=model, plugins=plugins, train_epochs=0)
    strategy.train(few)
    first = model.mixtures[0].means[0].clone()
    strategy.train(many)
    assert not torch.equal(model.mixtures[0].means[0], first)
    by_hand = FeatureGMM(layout)
    x = torch.stack([item[0] for item in many.dataset])
    by_hand.fit_category(0, x[:12])
    torch.testing.assert_close(model.mixtures[0].means[0], by_hand.mixtures[0].means[0])
    # a few of a category that is well known change nothing
    strategy.train(few)
    assert fitted == [(0, 3), (1, 3), (0, 12), (1, 12), (0, 12)]
    torch.testing.assert_close(model.mixtures[0].means[0], by_hand.mixtures[0].means[0])


def test_a_category_that_another_fitted_is_left_alone(
    stream, make_strategy, layout, fitted
):
    experience = stream().train_stream[0]
    model = DynamicFeatureGMM(layout)
    model.fit_category(0, torch.stack([experience.dataset[0][0]] * 2))
    strategy = make_strategy(
        model=model, plugins=[FitFeatureGMMPlugin()], train_epochs=0
    )
    strategy.train(experience)
    assert fitted == [(0, 2), (1, 12)]


def test_another_model_is_refused(stream, make_strategy):
    strategy = make_strategy(plugins=[FitFeatureGMMPlugin()])
    with pytest.raises(TrainingError, match="got a DynamicFlowGMM"):
        strategy.train(stream().train_stream[0])
