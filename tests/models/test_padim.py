import pytest
import torch

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FeatureGMM, PaDiM
from avalanche_ad.models.gaussians import PlaceDensity
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.storage import load_model, save_model

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


def placeless(count, seed=0):
    """Two sorts of vectors, each anywhere."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.randn(count, LAYOUT.size, generator=generator)
    levels = LAYOUT.unflatten(x)
    for level in levels:
        level += (
            4 * torch.randint(0, 2, level.shape[:3], generator=generator)[..., None]
        )
    return LAYOUT.flatten(levels)


def test_each_category_gets_the_density_that_images_held_out_are_likelier_under():
    model = PaDiM(LAYOUT, cells=2, components=2)
    model.fit_category(0, features(18))
    model.fit_category(1, placeless(18))
    assert [model.anywhere.has(category) for category in (0, 1)] == [False, True]
    other, alone = FeatureGMM(LAYOUT, components=2), PaDiM(LAYOUT, cells=2)
    other.fit_category(1, placeless(18))
    alone.fit_category(0, features(18))
    x = torch.cat([features(2, seed=3), placeless(2, seed=4)])
    category = torch.tensor([0, 0, 1, 1])
    found = model.log_likelihood_levels(latents_of(model(x)), category)
    assert model.infer_category(model(x)).tolist() == [0, 0, 1, 1]
    for rows, by in ((slice(2), alone), (slice(2, 4), other)):
        expected = by.log_likelihood_levels(latents_of(by(x[rows])), category[rows])
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours[rows], theirs, rtol=1e-4, atol=1e-4)
    model.fit_category(1, features(18, 1))  # fitted anew, to images that lie still
    assert not model.anywhere.has(1)


def test_too_few_images_to_hold_any_out_have_no_place():
    model = PaDiM(LAYOUT, cells=2, components=1)
    model.fit_category(0, features(5))
    assert model.anywhere.has(0)


@pytest.mark.parametrize(
    ("kind", "components"),
    [("likelihood", 0), ("uncertainty", 0), ("likelihood", 1)],
)
def test_held_out_images_are_scored_as_by_a_model_that_never_saw_them(
    kind, components, monkeypatch
):
    # how far covariances are shrunk is chosen once
    monkeypatch.setattr(
        "avalanche_ad.models.gaussians.place_density.chosen_share", lambda *_: 0.5
    )
    x = placeless(12) if components else features(12, 1)
    model = made(known=(0,), components=components, score_kind=kind)

    def learn(rows):
        model.fit_category(1, rows)
        model.calibrate([(rows, torch.ones(len(rows), dtype=torch.long))])

    learn(x)
    assert model.anywhere.has(1) == bool(components)
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
