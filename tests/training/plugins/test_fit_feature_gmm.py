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

    def noted(self, category, packed):
        calls.append((category, len(packed)))
        fit(self, category, packed)

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
    torch.testing.assert_close(model.means_0[2], by_hand.means_0[2])


def test_another_model_is_refused(stream, make_strategy):
    strategy = make_strategy(plugins=[FitFeatureGMMPlugin()])
    with pytest.raises(TrainingError, match="got a DynamicFlowGMM"):
        strategy.train(stream().train_stream[0])
