import pytest
import torch

from avalanche_ad.errors import RecipeError, TrainingError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FeatureGMM, PaDiM
from avalanche_ad.models.gaussians import PlaceDensity
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.scores import score_named
from avalanche_ad.models.storage import load_model, save_model
from avalanche_ad.recipes import load_experiment

LAYOUT = FeatureLayout(((9, 10, 6), (4, 4, 5)))
SIZE = (12, 12)
ZEROS = torch.zeros(3, dtype=torch.long)


def features(count, category=0, seed=0):
    """Another field for every category, no further apart than its deviations."""
    own = torch.Generator().manual_seed(50 + category)
    generator = torch.Generator().manual_seed(seed)
    field = torch.randn(LAYOUT.size, generator=own)
    return field + torch.randn(count, LAYOUT.size, generator=generator)


def made(known=(0, 1, 2), count=8, **options):
    model = PaDiM(LAYOUT, cells=2, **{"smoothing_sigma": 1.0} | options)
    for category in known:
        x = features(count, category, seed=category)
        model.fit_category(category, x)
        model.calibrate([(x, torch.full((count,), category))])
    return model.eval()


def test_likelihoods_are_the_places():
    model, x = made(), features(3, 1, 9)
    category = torch.tensor([0, 2, 0])
    latents = latents_of(model(x))
    found = model.log_likelihood_levels(latents, category)
    again = model.log_likelihood_levels(latents, ZEROS)
    for index, level in enumerate(LAYOUT.unflatten(x)):
        height, width, channels = LAYOUT.levels[index]
        density = PlaceDensity(height, width, channels, 2)
        for image, own in enumerate(category.tolist()):
            density.fit(0, LAYOUT.unflatten(features(8, own, seed=own))[index])
            expected = density.log_likelihood(level.flatten(1, 2), 0)[image] / channels
            torch.testing.assert_close(found[index][image].flatten(), expected)
        assert torch.equal(again[index][::2], found[index][::2])
        assert not torch.equal(again[index][1], found[index][1])


def test_features_that_half_precision_cannot_hold_are_refused():
    model = PaDiM(LAYOUT, cells=2)
    with pytest.raises(TrainingError, match="category 0 has features up to"):
        model.fit_category(0, features(8) * 1e6)


def test_categories_that_differ_by_place_alone_are_told():
    """Each has the same vectors, at other positions."""
    base = features(12, 0)
    levels = LAYOUT.unflatten(base)
    turned = LAYOUT.flatten([level.flip(1) for level in levels])
    model = PaDiM(LAYOUT, 4, cells=2)
    model.fit_category(1, base)
    model.fit_category(3, turned)
    new = features(6, 0, seed=8)
    flipped = LAYOUT.flatten([level.flip(1) for level in LAYOUT.unflatten(new)])
    assert model.infer_category(model(new)).tolist() == [1] * 6
    assert model.infer_category(model(flipped)).tolist() == [3] * 6
    assert model(new).shape == (6, 4)


def test_anywhere_is_the_mixture_that_knows_no_place():
    model = made(components=2)
    other = FeatureGMM(LAYOUT, components=2)
    for category in range(3):
        other.fit_category(category, features(8, category, seed=category))
    x, category = features(3, 1, 9), torch.tensor([1, 0, 1])
    found = model.normality_levels("anywhere", latents_of(model(x)), category)
    expected = other.log_likelihood_levels(latents_of(other(x)), category)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("position_calibration", [True, False])
def test_the_product_of_experts_is_the_mean_of_both_maps(position_calibration):
    model = made(components=2, position_calibration=position_calibration)
    x = features(3, 1, 9)
    product, place, anywhere = (
        model.score(model(x), SIZE, ZEROS, kind).maps
        for kind in ("product_of_experts", "likelihood", "anywhere")
    )
    torch.testing.assert_close(product, (place + anywhere) / 2)
    assert ("anywhere" in model.positions) == position_calibration


@pytest.mark.parametrize("kind", ["product_of_experts", "anywhere"])
def test_a_second_expert_that_there_is_not_is_refused(kind, tiny_stream):
    for make in (
        lambda: PaDiM(LAYOUT, score_kind=kind),
        lambda: check_strategy(
            load_experiment(str(tiny_stream), "padim", [f"model.score_kind={kind}"])
        ),
    ):
        with pytest.raises(
            RecipeError, match=f"'{kind}' needs a second expert"
        ) as said:
            make()
        assert "\n" not in str(said.value)
    model = made(known=(0, 1))
    with pytest.raises(TrainingError, match="no map 'anywhere'"):
        model.score(model(features(3)), SIZE, kind=kind)
    assert "anywhere" not in model.positions


def test_other_models_have_no_product_of_experts():
    with pytest.raises(RecipeError, match="made of likelihood and anywhere"):
        score_named("product_of_experts", ("likelihood", "uncertainty"))


@pytest.mark.parametrize(
    ("kind", "components"),
    [("likelihood", 0), ("uncertainty", 0), ("product_of_experts", 1)],
)
def test_held_out_images_are_scored_as_by_a_model_that_never_saw_them(
    kind, components, monkeypatch
):
    # how far covariances are shrunk is chosen once
    monkeypatch.setattr(
        "avalanche_ad.models.gaussians.place_density.chosen_share", lambda *_: 0.5
    )
    x = features(12, 1)
    model = made(known=(0,), components=components, score_kind=kind)

    def learn(rows):
        model.fit_category(1, rows)
        model.calibrate([(rows, torch.ones(len(rows), dtype=torch.long))])

    learn(x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = model.held_out_scores(1, x, SIZE, folds=4, images=9)
    for name, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name
    assert model.holds_out_density(1, 12)
    assert not model.holds_out_density(1, 11)
    for first in range(0, 12, 3):
        held = torch.arange(first, first + 3)
        learn(torch.cat([x[:first], x[first + 3 :]]))
        expected = model.score(model(x[held]), SIZE, torch.ones(3, dtype=torch.long))
        torch.testing.assert_close(found[held], expected.image, rtol=1e-2, atol=1e-2)


def test_more_images_of_a_category_are_fitted_anew_and_fewer_are_not():
    model = PaDiM(LAYOUT, cells=2)

    def bring(count):
        x = features(count)
        model.fit_experience([(x, torch.zeros(count, dtype=torch.long))])
        return int(model.places[0].images[0])

    assert [bring(count) for count in (2, 7, 3)] == [2, 7, 7]


def test_order_of_arrival_changes_nothing_and_nothing_trains():
    x = features(3)
    one, other = made((0, 1, 2), components=1), made((2, 0, 1), components=1)
    assert torch.equal(one(x), other(x))
    assert not one(x).requires_grad
    assert not any(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize("components", [0, 2])
def test_it_is_saved_and_loaded(components, tmp_path):
    options = {"components": components, "cells": 2}
    model = made((0, 2), components=components)
    model.resize(4)
    save_model(model, tmp_path, "padim", options | {"smoothing_sigma": 1.0}, {})
    loaded, _ = load_model(tmp_path)
    x = features(3)
    assert loaded.known_categories.tolist() == [0, 2]
    assert torch.equal(loaded(x), model(x))
    assert torch.equal(
        loaded.score(loaded(x), SIZE).maps, model.score(model(x), SIZE).maps
    )
