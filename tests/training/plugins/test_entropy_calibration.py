import math

import pytest
import torch

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.scoring import negative_entropy
from avalanche_ad.training.plugins import CalibrationPlugin, EntropyCalibrationPlugin


@pytest.fixture
def x():
    return torch.randn(4, 30, generator=torch.Generator().manual_seed(1))


def entropies(model, x, category):
    levels = model.negative_entropy_levels(latents_of(model(x)), category)
    return torch.cat([level.flatten(1) for level in levels], 1)


def grown(make_model, scope):
    """The entropies of four images before and after two categories are added."""
    model = make_model(0).eval()
    model.entropy = scope
    return model


@pytest.mark.parametrize("scope", ["known", "when_learned", "log_categories"])
def test_only_that_over_the_categories_known_when_learned_stays(make_model, x, scope):
    model = grown(make_model, scope)
    category = torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        model.add_categories([0, 1])
        before = entropies(model, x, category)
        model.add_categories([2, 3])
        after = entropies(model, x, category)
    assert torch.equal(before, after) == (scope == "when_learned")


def test_a_new_category_is_uncertain_over_all_before_it(make_model, x):
    model = grown(make_model, "when_learned")
    with torch.no_grad():
        model.add_categories([0, 1])
        model.add_categories([2, 3])
        found = entropies(model, x, torch.tensor([2, 3, 2, 3]))
        model.entropy = "known"
        assert torch.equal(found, entropies(model, x, torch.tensor([0, 0, 0, 0])))


def test_divided_by_log_c_it_is_at_most_one(make_model, x):
    model = grown(make_model, "log_categories")
    with torch.no_grad():
        model.add_categories([0, 1, 2])
        found = entropies(model, x, torch.zeros(4, dtype=torch.long))
    assert (found >= -1).all()
    assert float(negative_entropy(torch.zeros(3)) / math.log(3)) == pytest.approx(-1)


def test_a_category_learned_alone_leaves_the_likelihood_for_all(make_model, x):
    model = grown(make_model, "when_learned")
    with torch.no_grad():
        model.add_categories([0])
        model.calibrate([(x, torch.zeros(4, dtype=torch.long))])
        alone = model.score(model(x), (4, 4), torch.zeros(4, dtype=torch.long))
        model.add_categories([1])
        category = torch.tensor([0, 0, 1, 1])
        found = model.score(model(x), (4, 4), category)
        likelihood = model.score(model(x), (4, 4), category, "likelihood")
        uncertainty = model.score(model(x), (4, 4), category, "uncertainty")
    assert torch.equal(found.maps[:2], alone.maps[:2])
    # one scale, whatever category an image is taken for
    assert torch.equal(found.maps, likelihood.maps)
    assert torch.equal(uncertainty.maps, likelihood.maps)


def test_the_plugin_sets_it_and_the_state_keeps_it(make_strategy, make_model, stream):
    plugins = [EntropyCalibrationPlugin(), CalibrationPlugin()]
    strategy = make_strategy(plugins=plugins)
    for experience in stream().train_stream:
        strategy.train(experience)
    assert strategy.model.entropy == "when_learned"
    learned = strategy.model.known_when_learned.long()
    assert learned.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1] * 4, [1] * 4]
    other = make_model(0)
    other.load_state_dict(strategy.model.state_dict())
    assert other.entropy == "when_learned"
    assert torch.equal(other.known_when_learned.long(), learned)


def test_wrong_scopes_and_models_are_refused(fake_strategy, make_model):
    with pytest.raises(TrainingError, match="known, when_learned, log_categories"):
        EntropyCalibrationPlugin("none")
    with pytest.raises(ValueError, match="known, when_learned, log_categories"):
        make_model().entropy = "none"
    with pytest.raises(
        TrainingError, match="sets the entropy of a (FlowModel|ScopedEntropy), got a"
    ):
        EntropyCalibrationPlugin().before_training_exp(
            fake_strategy(model=torch.nn.Linear(1, 1))
        )
