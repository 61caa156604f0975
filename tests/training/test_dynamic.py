import torch

from avalanche_ad.training import DynamicFlowGMM
from avalanche_ad.training.dynamic import features_by_category


def test_features_are_gathered_by_category(stream):
    dataset = stream().train_stream[1].dataset
    found = features_by_category(dataset)
    assert sorted(found) == [2, 3]
    for category, features in found.items():
        expected = [item[0] for item in dataset if item[1] == category]
        assert torch.equal(features, torch.stack(expected))


def test_the_first_so_many_of_each_category_are_enough(stream):
    whole = stream(train=70).train_stream[1].dataset  # several minibatches of each
    everything = features_by_category(whole)
    assert [len(x) for x in everything.values()] == [70, 70]
    for limit in (1, 66, 70, 100):
        found = features_by_category(whole, limit)
        assert list(found) == [2, 3]
        for category, x in found.items():
            assert torch.equal(x, everything[category][:limit])
            # nothing of what was left out stays in the storage
            assert x.untyped_storage().nbytes() == x.nbytes


def test_adaptation_starts_the_categories_of_the_experience(stream, make_model):
    first, second = stream().train_stream
    model = make_model(num_categories=0)
    model.adaptation(second)
    assert model.known_categories.tolist() == [2, 3]
    model.adaptation(first)
    assert model.known_categories.tolist() == [0, 1, 2, 3]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.adaptation(first)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_adaptation_in_evaluation_does_nothing(stream, make_model):
    first, second = stream().train_stream
    for room in (0, 4):
        model = make_model(num_categories=room)
        model.adaptation(first)
        parameters = dict(model.named_parameters())
        before = model.num_categories
        model.eval()
        model.adaptation(second)
        assert model.num_categories == before
        assert model.known_categories.tolist() == [0, 1]
        assert all(parameters[name] is p for name, p in model.named_parameters())


def test_centres_from_data_are_the_mean_latents_of_the_experience(stream, make_model):
    model = make_model(num_categories=0, center_init="data")
    experience = stream().train_stream[0]
    model.adaptation(experience)
    x = features_by_category(experience.dataset)
    with torch.no_grad():
        for category in (0, 1):
            latents = model(x[category]).latents
            for level, mixture in zip(latents.levels, model.mixtures, strict=True):
                torch.testing.assert_close(
                    mixture.centers[category, 0],
                    level.z.mean((0, 1, 2)),
                    rtol=1e-4,
                    atol=1e-4,
                )


def test_known_categories_do_not_cost_a_pass_over_the_data(stream, make_model):
    class Blind:
        classes_in_this_experience = (0, 1)

    model = make_model(num_categories=0, center_init="data")
    model.adaptation(stream().train_stream[0])
    model.adaptation(Blind())


def test_it_is_a_flow_gmm_that_avalanche_adapts(make_model):
    model = make_model()
    assert isinstance(model, DynamicFlowGMM)
    assert model._auto_adapt
