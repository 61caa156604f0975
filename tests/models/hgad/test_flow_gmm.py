import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FlowGMM
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.hgad.mixture import pattern_centers
from avalanche_ad.models.hgad.training import drawn_positions
from avalanche_ad.models.latents import latents_of

MASK = (8, 8)


def test_output_is_the_mean_log_likelihood_under_the_main_centres(flow_gmm, features):
    model = flow_gmm(known=(0, 1, 3)).double()
    x = features(3).double()
    output = model(x)
    per_level = []
    for index, level in enumerate(model.layout.unflatten(x)):
        mixture = model.mixtures[index]
        z, log_det = model.latent_level(index, level)
        columns = [
            (
                MultivariateNormal(mixture.centers[c, 0], torch.eye(6).double())
                .log_prob(z)
                .mean(1)
                + log_det.mean(1)
            )
            / math.sqrt(6)
            for c in (0, 1, 3)
        ]
        prior = mixture.class_logits[[0, 1, 3]].log_softmax(0)
        per_level.append(torch.stack(columns, 1) + prior)
    expected = torch.stack(per_level).mean(0)
    torch.testing.assert_close(output[:, [0, 1, 3]], expected, rtol=1e-9, atol=1e-9)


def test_latents_hold_the_known_categories_alone(flow_gmm, features):
    model = flow_gmm(known=(1, 3))
    model.resize(5)
    latents = latents_of(model(features(2)))
    assert latents.known.tolist() == [1, 3]
    for level, mixture, shape in zip(
        latents.levels, model.mixtures, model.layout.levels, strict=True
    ):
        assert level.z.shape == (2, *shape)
        assert level.log_det.shape == (2, *shape[:2])
        assert torch.equal(level.centers, mixture.centers[[1, 3]])
        assert torch.equal(level.class_logits, mixture.class_logits[[1, 3]])
        assert torch.equal(level.inner_logits, mixture.inner_logits[[1, 3]])


def test_position_matters(flow_gmm, features):
    x = torch.zeros(1, features(1).shape[1])
    with_code = latents_of(flow_gmm()(x)).levels[0].z.flatten(0, 2)
    assert len(with_code.detach().unique(dim=0)) == 16
    without = latents_of(flow_gmm(condition_channels=0)(x)).levels[0].z.flatten(0, 2)
    torch.testing.assert_close(without, without[:1].expand(16, -1))


def test_every_parameter_is_listed_and_gets_a_gradient(flow_gmm, features):
    model = flow_gmm()
    output = model(features(2))
    latents = latents_of(output)
    likelihood = model.log_likelihood_levels(latents, torch.tensor([0, 1]))
    (output.sum() + sum(level.sum() for level in likelihood)).backward()
    names = [name for name, _ in model.named_parameters()]
    for part in ("flows.0", "flows.1", "mixtures.0.centers", "mixtures.1.inner_logits"):
        assert any(name.startswith(part) for name in names), part
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_categories_masked_get_no_gradient(flow_gmm, features):
    model = flow_gmm(known=(0, 2))
    model.resize(4)
    output = model(features(2))
    torch.nn.functional.cross_entropy(output, torch.tensor([0, 2])).backward()
    for mixture in model.mixtures:
        for parameter in (mixture.centers, mixture.class_logits):
            assert float(parameter.grad[[1, 3]].abs().max()) == 0
            assert float(parameter.grad[[0, 2]].abs().max()) > 0


def test_new_centres_raise_the_uncertainty_and_leave_the_likelihood(flow_gmm, features):
    model = flow_gmm(known=(0, 1), center_init="orthogonal").eval()
    x, y = features(6), torch.tensor([0, 1, 0, 1, 0, 1])
    model.calibrate([(x, y)])

    def scores():
        output = model(x)
        return {
            kind: model.score(output, MASK, y, kind).maps
            for kind in ("likelihood", "uncertainty", "product")
        }

    before = scores()
    model.add_categories([2, 3])
    after = scores()
    assert torch.equal(before["likelihood"], after["likelihood"])
    # entropy can only be shared among more centres
    assert float(after["uncertainty"].mean()) > float(before["uncertainty"].mean())
    assert not torch.allclose(before["product"], after["product"], rtol=1e-3)


def test_growing_leaves_known_categories_as_they_are(flow_gmm, features):
    model = flow_gmm(known=(0, 1))
    x = features(3)
    with torch.no_grad():
        before = model(x)
        kept = [mixture.centers[:2].clone() for mixture in model.mixtures]
        model.add_categories([0, 1, 2])
        after = model(x)
    for mixture, centers in zip(model.mixtures, kept, strict=True):
        assert torch.equal(mixture.centers[:2], centers)
    # the prior is spread over one more category, the likelihoods stay
    torch.testing.assert_close(
        after[:, 0] - after[:, 1], before[:, 0] - before[:, 1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("center_init", ["pattern", "orthogonal", "data"])
def test_room_made_beforehand_changes_nothing(layout, features, center_init):
    data = {category: features(3, seed=category) for category in range(4)}
    models = []
    for room in (0, 4, 9):
        model = FlowGMM(
            layout,
            room,
            couplings=2,
            condition_channels=4,
            center_init=center_init,
        )
        model.add_categories([0, 1], data)
        model.add_categories([2, 3], data)
        models.append(model)
    x = features(3)
    outputs = [model(x)[:, :4] for model in models]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("center_init", ["pattern", "data"])
def test_grouping_of_arrivals_changes_no_centre(layout, features, center_init):
    data = {category: features(3, seed=category) for category in range(4)}
    centers = []
    for groups in ([[0, 1, 2, 3]], [[0], [1, 2], [3]], [[3, 1], [2, 0]]):
        model = FlowGMM(
            layout, couplings=2, condition_channels=4, center_init=center_init
        )
        for group in groups:
            model.add_categories(group, data)
        centers.append(model.mixtures[0].centers)
    torch.testing.assert_close(centers[0], centers[1])
    torch.testing.assert_close(centers[0], centers[2])


def test_centres_from_data_are_mean_latents(flow_gmm, features):
    model = flow_gmm(known=())
    model.center_init = "data"
    x = features(20)  # more than one minibatch
    model.add_categories([1], {1: x})
    latents = latents_of(model(x))
    for level, mixture in zip(latents.levels, model.mixtures, strict=True):
        torch.testing.assert_close(
            mixture.centers[1, 0], level.z.mean((0, 1, 2)), rtol=1e-4, atol=1e-5
        )
    assert mixture.centers.requires_grad


def test_centres_from_data_need_data(flow_gmm, features):
    model = flow_gmm(known=(0,), center_init="pattern")
    model.center_init = "data"
    with pytest.raises(ValueError, match="features of every new category"):
        model.add_categories([1])
    with pytest.raises(ValueError, match="features of every new category"):
        model.add_categories([1, 2], {1: features(2)})
    model.add_categories([0])
    assert model.known_categories.tolist() == [0]


def test_seed_decides_the_model(layout, features):
    def output(seed, draws):
        torch.manual_seed(draws)
        model = FlowGMM(layout, couplings=2, condition_channels=4, seed=seed)
        model.add_categories([0, 1])
        return model(features(2))

    assert torch.equal(output(0, 1), output(0, 2))
    assert not torch.equal(output(0, 1), output(1, 1))


def test_state_dict_round_trip(flow_gmm, layout, features):
    model = flow_gmm()
    model.calibrate([(features(3), torch.arange(3))])
    other = FlowGMM(
        layout,
        3,
        couplings=2,
        condition_channels=4,
        centers_per_category=3,
        seed=8,
        position_calibration=False,
    )
    other.load_state_dict(model.state_dict())
    x = features(3)
    assert torch.equal(other(x), model(x))
    assert torch.equal(other.known_categories, model.known_categories)


def test_packed_features_of_another_layout_are_refused(flow_gmm):
    with pytest.raises(ValueError, match=r"expected features of shape \(N, 120"):
        flow_gmm()(torch.zeros(2, 7))


def test_a_training_step_sees_a_share_of_the_positions(flow_gmm, features):
    part = flow_gmm(position_fraction=0.25)
    whole = flow_gmm()
    x = features(3)
    shapes = [tuple(level.z.shape) for level in latents_of(part(x)).levels]
    assert shapes == [(3, 1, 4, 6), (3, 1, 1, 6)]
    every = latents_of(whole(x)).levels[0].z.flatten(1, 2)
    drawn = latents_of(part(x)).levels[0].z.flatten(1, 2)
    # those drawn are positions of the image, with the code of their place
    apart = torch.cdist(drawn, every).amin(2)
    assert float(apart.detach().max()) < 1e-4
    # a teacher and its student see the same positions of the same minibatch
    assert torch.equal(latents_of(part(x)).levels[0].z, latents_of(part(x)).levels[0].z)
    draws = {drawn_positions(torch.randn(1, 4, 4, 2), 0.1)[0].item() for _ in range(40)}
    assert len(draws) > 5
    part.eval()
    assert torch.equal(part(x), whole(x))


def test_scores_of_a_share_of_the_positions_are_refused(flow_gmm, features):
    model = flow_gmm(position_fraction=0.25).eval()
    model.calibrate([(features(3), torch.arange(3))])
    model.train()
    output = model(features(3))
    for kind in ("likelihood", "uncertainty", "product"):
        with pytest.raises(TrainingError, match=r"call model.eval\(\) before"):
            model.score(output, MASK, kind=kind)


def test_room_holds_the_pattern_before_a_category_starts():
    layout = FeatureLayout(((2, 2, 8),))
    model = FlowGMM(layout, 3, couplings=1, condition_channels=4)
    before = model.mixtures[0].centers.detach().clone()
    assert not model.mixtures[0].known.any()
    model.resize(5)
    model.add_categories([0, 1, 2, 3, 4])
    after = model.mixtures[0].centers.detach()
    assert torch.equal(after[:3], before)
    assert torch.equal(after[:, 0], pattern_centers(range(5), 8))


@pytest.mark.parametrize("init", ["pattern", "orthogonal"])
def test_categories_may_all_start_at_once(init):
    layout = FeatureLayout(((2, 2, 8),))
    model = FlowGMM(
        layout,
        3,
        couplings=1,
        condition_channels=4,
        center_init=init,
        categories_at_start=True,
    )
    assert model.known_categories.tolist() == [0, 1, 2]
    output = model(torch.randn(2, layout.size))
    assert float(output.detach().min()) > MASKED / 10


def test_categories_cannot_start_at_data_that_are_not_there():
    with pytest.raises(ValueError, match="'pattern' or 'orthogonal', got 'data'"):
        FlowGMM(
            FeatureLayout(((2, 2, 8),)), 3, center_init="data", categories_at_start=True
        )


# Aligned mixtures -----------------------------------------------------------------


@pytest.fixture
def aligned(flow_gmm):
    """A model of three categories of which 0 and 3 have an aligned mixture."""
    model = flow_gmm(known=(0, 1, 3)).eval()
    for mixture in model.alignment.start(2, model.num_categories):
        for category in (0, 3):
            generator = torch.Generator().manual_seed(category)
            roots = torch.randn(2, 6, 6, generator=generator).triu()
            roots.diagonal(0, -2, -1).abs_().add_(0.5)
            means = torch.randn(2, 6, generator=generator)
            mixture.put(category, torch.tensor([0.3, 0.7]), means, roots)
    return model


def test_an_aligned_category_is_scored_by_its_mixture(aligned, flow_gmm, features):
    x = features(4)
    plain = flow_gmm(known=(0, 1, 3)).eval()
    with torch.no_grad():
        output, before = aligned(x), plain(x)
        for category in (0, 1, 3):
            chosen = torch.full((4,), category)
            levels = aligned.log_likelihood_levels(latents_of(output), chosen)
            old = plain.log_likelihood_levels(latents_of(before), chosen)
            for index, features_ in enumerate(aligned.layout.unflatten(x)):
                if category == 1:
                    assert torch.equal(levels[index], old[index])
                    continue
                z, log_det = plain.latent_level(index, features_)
                mixture = aligned.alignment.mixtures[index]
                found = mixture.log_likelihood(
                    z.flatten(0, 1), torch.tensor([category])
                )
                expected = (found.view(log_det.shape) + log_det) / 6
                torch.testing.assert_close(levels[index].flatten(1), expected)
    torch.testing.assert_close(output[:, 1], before[:, 1])
    assert not torch.equal(output[:, 0], before[:, 0])


def test_training_knows_nothing_of_aligned_mixtures(aligned, flow_gmm, features):
    x, plain = features(4), flow_gmm(known=(0, 1, 3))
    assert torch.equal(aligned.train()(x), plain.train()(x))


def test_the_state_holds_the_aligned_mixtures(aligned, flow_gmm, features):
    other = flow_gmm(known=())
    other.load_state_dict(aligned.state_dict())
    assert torch.equal(other.eval()(features(4)), aligned(features(4)))
    other.load_state_dict(flow_gmm(known=(0, 1, 3)).state_dict())
    assert not len(other.alignment.mixtures)


def test_a_category_that_comes_later_has_none_yet(aligned, features):
    aligned.add_categories([4])
    output = aligned(features(2))
    assert output[:, 4].isfinite().all()
    mixture = latents_of(output).levels[0].aligned
    assert mixture.known[[0, 1, 3, 4]].tolist() == [True, False, True, False]
    category = torch.tensor([0, 4])
    levels = aligned.log_likelihood_levels(latents_of(output), category)
    assert all(level.isfinite().all() for level in levels)
