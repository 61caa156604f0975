"""Scores of a category's normals by models that were not fitted to them."""

import pytest
import torch

from avalanche_ad.errors import TrainingError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FeatureGMM, FlowGMM
from avalanche_ad.models.gaussians import FeatureStatistics, PlaceStatistics, refitted

LAYOUT = FeatureLayout(((4, 4, 6), (2, 2, 5)))
SIZE = (8, 8)


def features(count, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, LAYOUT.size, generator=generator) + shift


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(model, before):
    after = model.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name].nan_to_num(), value.nan_to_num()), name


def make_feature_gmm(x, **options):
    model = FeatureGMM(LAYOUT, position_calibration=True, **options)
    model.fit_category(0, features(30, 1, 2.0))
    model.fit_category(1, x)
    for category, own in ((0, features(30, 1, 2.0)), (1, x)):
        model.calibrate([(own, torch.full((len(own),), category))])
    return model.eval()


@pytest.mark.parametrize("kind", ["likelihood", "uncertainty", "product"])
def test_each_is_scored_as_by_a_model_that_never_saw_it(kind):
    x = features(12)
    model = make_feature_gmm(x, score_kind=kind)
    before = state(model)
    found = model.held_out_scores(1, x, SIZE, folds=4, images=9)
    assert_same_state(model, before)
    for first in range(0, 12, 3):
        held = torch.arange(first, first + 3)
        rest = torch.cat([x[:first], x[first + 3 :]])
        model.fit_category(1, rest)
        model.calibrate([(rest, torch.ones(9, dtype=torch.long))])
        expected = model.score(model(x[held]), SIZE, torch.ones(3, dtype=torch.long))
        torch.testing.assert_close(found[held], expected.image, rtol=2e-3, atol=2e-3)


def test_vectors_that_the_mixture_was_not_fitted_to_play_no_part():
    x = features(40)
    model = make_feature_gmm(x, max_positions=150)
    vectors, image, shares = next(
        iter(
            model.mixtures.drawn(
                1, [level.flatten(1, 2) for level in LAYOUT.unflatten(x)]
            )
        )
    )
    assert vectors.shape == (150, 6)
    assert shares.shape == (150, 1)
    means = model.mixtures[0].means[1, 0]
    torch.testing.assert_close(vectors.mean(0), means, rtol=1e-4, atol=1e-5)
    own = LAYOUT.unflatten(x)[0].flatten(1, 2)
    for row in range(0, 150, 15):
        assert bool((own[image[row]] == vectors[row]).all(1).any())


def test_a_score_does_not_depend_on_what_is_held_out_with_it():
    """One Gaussian: the fold's images have no part in what scores them."""
    x = features(12)
    found = make_feature_gmm(x).held_out_scores(1, x, SIZE, folds=4, images=9)
    other = x.clone()
    other[0] += 5.0
    again = make_feature_gmm(other).held_out_scores(1, other, SIZE, folds=4, images=9)
    torch.testing.assert_close(again[1:3], found[1:3], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(again[3:], found[3:], rtol=1e-2)


def test_held_out_scores_are_those_of_new_images_and_training_scores_are_not():
    x, new = features(60), features(400, 7)
    model = make_feature_gmm(x)
    ones = torch.ones(400, dtype=torch.long)
    trained = model.score(model(x), SIZE, ones[:60]).image.mean()
    tested = model.score(model(new), SIZE, ones).image.mean()
    held_out = model.held_out_scores(1, x, SIZE, folds=20, images=60).mean()
    assert tested > trained
    assert abs(held_out - tested) < 0.5 * (tested - trained)


def flow_gmm(x, **options):
    model = FlowGMM(
        LAYOUT, couplings=2, condition_channels=4, centers_per_category=2, **options
    )
    model.add_categories([0, 1])
    model.eval()
    model.calibrate([(x, torch.ones(len(x), dtype=torch.long))])
    return model


def test_a_flow_stays_and_the_constants_are_of_the_others():
    x = features(12)
    model = flow_gmm(x, position_calibration=True)
    before = state(model)
    found = model.held_out_scores(1, x, SIZE, folds=12, images=11)
    assert_same_state(model, before)
    for index in range(12):
        rest = torch.cat([x[:index], x[index + 1 :]])
        model.calibrate([(rest, torch.ones(11, dtype=torch.long))])
        one = torch.ones(1, dtype=torch.long)
        expected = model.score(model(x[index][None]), SIZE, one).image
        torch.testing.assert_close(found[index][None], expected)


@pytest.mark.parametrize("form", ["full", "low_rank", "place"])
@pytest.mark.parametrize("mean_field", [False, True])
@pytest.mark.parametrize("kind", ["likelihood", "product"])
def test_aligned_mixtures_follow_from_the_statistics_of_the_others(
    form, mean_field, kind
):
    x = features(24)
    model = flow_gmm(x, score_kind=kind, position_calibration=True)
    if form == "place":
        statistics = PlaceStatistics(LAYOUT, 2, precision="float32")
    else:
        statistics = FeatureStatistics(
            LAYOUT, 2, form, rank=3, mean_field=mean_field, precision="float32"
        )
    model.alignment.statistics = statistics
    model.alignment.statistics.fit_category(1, x)
    model.align_to_statistics(400)
    model.calibrate([(x, torch.ones(24, dtype=torch.long))])
    before = state(model)
    scores = model.held_out_scores(1, x, SIZE, folds=6, images=20)
    assert_same_state(model, before)
    assert scores.shape == (24,)
    assert bool(scores.isfinite().all())
    kinds = ["uncertainty", "likelihood"] if kind == "product" else ["likelihood"]
    every = torch.arange(24)
    with torch.no_grad():
        (found,) = model.levels_without(1, x, [(every[:18], every)], kinds)
        ones = torch.ones(24, dtype=torch.long)
        latents = model(x).latents
        as_it_is = model.log_likelihood_levels(latents, ones)
        entropies = model.negative_entropy_levels(latents, ones)
    assert list(found) == kinds
    for level, before_it in zip(found["likelihood"], as_it_is, strict=True):
        torch.testing.assert_close(level[:18], before_it[:18])
        assert level[18:].mean() < before_it[18:].mean()
    if kind == "product":
        for level, entropy in zip(found["uncertainty"], entropies, strict=True):
            torch.testing.assert_close(level, entropy.exp())


def test_few_images_of_a_category_that_was_fitted_to_more_leave_its_density_alone():
    x = features(30)
    model = make_feature_gmm(x)
    whole = model.held_out_scores(1, x, SIZE, folds=30, images=29)
    few = model.held_out_scores(1, x[:6], SIZE, folds=6, images=5)
    assert bool(few.isfinite().all())
    assert len(whole) == 30
    (levels, *_) = model.levels_without(
        1, x[:6], [(torch.arange(5), torch.arange(6))], ["likelihood"]
    )
    model.eval()
    expected = model.log_likelihood_levels(
        model(x[:6]).latents, torch.ones(6, dtype=torch.long)
    )
    for level, same in zip(levels["likelihood"], expected, strict=True):
        torch.testing.assert_close(level, same)


def test_a_single_image_cannot_be_held_out():
    x = features(12)
    with pytest.raises(TrainingError, match="category 1 has 1 training image"):
        make_feature_gmm(x).held_out_scores(1, x[:1], SIZE)


def test_a_step_of_the_em_is_the_fit_for_one_gaussian_and_exact_for_several():
    x = features(200)[:, :6]
    found = refitted(x, torch.ones(200, 1), 0.0)
    torch.testing.assert_close(found.mean[0], x.double().mean(0))
    torch.testing.assert_close(
        found.covariance[0], x.double().T.cov(correction=0) + 1e-6 * torch.eye(6)
    )
    shares = torch.rand(200, 3).softmax(1)
    several = refitted(x, shares, 0.0)
    weight = shares.double().sum(0)
    torch.testing.assert_close(several.weight, weight / weight.sum())
    torch.testing.assert_close(
        several.mean, shares.double().T @ x.double() / weight[:, None]
    )


@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_an_image_and_its_copies_are_held_out_together_and_scored_once(noise):
    x = features(12)
    copied = torch.cat([x, x[[4, 4, 11]] + noise * features(3, 5)])
    model = make_feature_gmm(copied)
    found = model.held_out_scores(1, copied, SIZE, folds=12, images=30)
    assert found.shape == (12,)
    of = torch.tensor([*range(12), 4, 4, 11])
    for index in range(12):
        rest = copied[of != index]
        model.fit_category(1, rest)
        drawn = rest[torch.arange(30) % len(rest)]
        model.calibrate([(drawn, torch.ones(30, dtype=torch.long))])
        one = torch.ones(1, dtype=torch.long)
        expected = model.score(model(x[index][None]), SIZE, one).image
        torch.testing.assert_close(found[index][None], expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["feature_gmm", "statistics"])
def test_a_copy_breaks_no_promise(kind):
    """New normals reach the largest of 40 held-out scores about once in 41."""
    x, new = features(40), features(300, 9)
    copied = torch.cat([x, x[:1] + 1e-3 * features(1, 5)])
    if kind == "feature_gmm":
        model = make_feature_gmm(copied)
    else:
        model = flow_gmm(copied, score_kind="likelihood", position_calibration=True)
        model.alignment.statistics = FeatureStatistics(LAYOUT, 2, precision="float32")
        model.alignment.statistics.fit_category(1, copied)
        model.align_to_statistics(4000)
        model.calibrate([(copied, torch.ones(41, dtype=torch.long))])
    ones = torch.ones(300, dtype=torch.long)
    scores = model.score(model(new), SIZE, ones).image
    held_out = model.held_out_scores(1, copied, SIZE, folds=40, images=39)
    assert len(held_out) == 40
    assert (scores > held_out.max()).float().mean() < 0.1


def test_copies_of_one_image_cannot_be_held_out():
    x = features(12)
    copies = x[:1].repeat(3, 1)
    with pytest.raises(TrainingError, match="category 1 has 1 training image"):
        make_feature_gmm(x).held_out_scores(1, copies, SIZE)
