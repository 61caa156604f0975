"""RWalk leaves the model in evaluation mode; the plugin puts it back."""

import pytest
from avalanche.training.plugins import RWalkPlugin

from avalanche_ad.training.plugins import TrainingModePlugin


@pytest.mark.parametrize("first", [True, False])
def test_training_sees_the_model_in_training_mode(
    stream, make_strategy, make_model, probe, first
):
    positions = probe(
        "after_forward",
        lambda s: (s.model.training, s.mb_output.latents.levels[0].log_det.shape[2]),
    )
    plugins = [RWalkPlugin(delta_t=2), positions]
    plugins.insert(0 if first else 1, TrainingModePlugin())
    model = make_model(position_fraction=0.5)
    strategy = make_strategy(model=model, plugins=plugins, train_epochs=1)
    for experience in stream().train_stream:
        strategy.train(experience)
    assert set(positions.seen) == {(True, 2)}


def test_without_it_the_model_stays_in_evaluation_mode(stream, make_strategy, probe):
    modes = probe("after_forward", lambda s: s.model.training)
    strategy = make_strategy(plugins=[RWalkPlugin(delta_t=2), modes])
    strategy.train(stream().train_stream[0])
    assert set(modes.seen) == {False}
