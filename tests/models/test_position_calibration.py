"""Statistics per position: against a direct computation, and what they undo."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FeatureGMM, FlowGMM
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.position_calibration import (
    PositionCalibration,
    at_most_typical,
    mean_and_deviation,
)
from avalanche_ad.models.scoring import normality_map
from avalanche_ad.models.storage import load_model, save_model

MASK = (12, 12)


def maps(count, shape=(6, 5), seed=0):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


@given(
    st.integers(1, 9),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.floats(0.1, 20),
    st.integers(0, 99),
)
def test_moments_are_their_formula(count, sigma, prior, seed):
    level = maps(count, seed=seed).double()
    mean, deviation = mean_and_deviation(level, sigma, prior)
    values = level.numpy()
    expected = gaussian_filter(values.mean(0), sigma)
    square = gaussian_filter((values**2).mean(0), sigma)
    variance = square - expected**2
    variance = (count * variance + prior * variance.mean()) / (count + prior)
    np.testing.assert_allclose(mean, expected, atol=1e-9)
    expected = np.sqrt(variance.clip(min=0)).clip(min=1e-3)
    np.testing.assert_allclose(deviation, expected, rtol=1e-6)


def test_without_smoothing_or_prior_normals_become_standard():
    level = maps(50) * torch.linspace(1, 9, 30).view(6, 5) + 3
    mean, deviation = mean_and_deviation(level, sigma=0, prior=0)
    found = (level - mean) / deviation
    torch.testing.assert_close(found.mean(0), torch.zeros(6, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(6, 5))


@pytest.mark.parametrize("count", [1, 3])
def test_maps_without_any_variance_stay_finite(count):
    level = torch.full((count, 4, 4), -2.5)
    mean, deviation = mean_and_deviation(level)
    assert bool((deviation > 0).all())
    standard = (level - mean) / deviation
    torch.testing.assert_close(standard, torch.zeros(count, 4, 4), atol=1e-3, rtol=0)


def standard_of(level):
    """What a position is standardised by, written out."""
    mean, deviation = mean_and_deviation(level)
    return mean.clamp(max=float(np.median(mean.detach().numpy()))), deviation


def test_positions_have_effects_of_one_sign():
    mean = maps(1, (7, 5))[0]
    found, typical = at_most_typical(mean), mean.quantile(0.5)
    torch.testing.assert_close(found[mean < typical], mean[mean < typical])
    assert bool((found[mean >= typical] == typical).all())


def test_a_still_background_stays_below_the_part():
    """However little normals differ there, the part that varies is what stands out."""
    part = torch.zeros(12, 12)
    part[:, 5:] = 1  # the rest, less than half, is always still
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 12, 12, generator=generator)
    levels = [noise * (0.1 + part) - 5 * part]
    calibration = PositionCalibration([(12, 12)])
    calibration.fit(0, levels)
    score = -calibration(levels, torch.zeros(40, dtype=torch.long))[0]
    assert float(score[:, :, :4].max()) < float(score[:, :, 6:].mean())


def test_a_category_has_its_own_and_a_stranger_the_mean():
    statistics = PositionCalibration([(6, 5), (3, 3)])
    levels = {c: [maps(8, (6, 5), c) + c, maps(8, (3, 3), c) * (c + 1)] for c in (0, 2)}
    for category, found in levels.items():
        statistics.fit(category, found)
    test = [maps(4, (6, 5), 7), maps(4, (3, 3), 8)]
    category = torch.tensor([2, 0, 1, 4])
    for index, level in enumerate(statistics(test, category)):
        rows = {}
        for c in levels:
            mean, deviation = standard_of(levels[c][index])
            largest = ((levels[c][index] - mean) / deviation).max()
            rows[c] = torch.stack([mean + largest * deviation, deviation])
        stranger = torch.stack(list(rows.values())).mean(0)
        for row, c in enumerate(category.tolist()):
            zero, deviation = rows.get(c, stranger)
            expected = (test[index][row] - zero) / deviation
            torch.testing.assert_close(level[row], expected)
    for category, found in levels.items():
        own = statistics(found, torch.full((8,), category))
        for level in own:  # the most normal position of the normals has 0
            assert float(level.max()) == pytest.approx(0, abs=1e-5)
    before = statistics.level_0.clone()
    statistics.fit(0, levels[2])
    assert torch.equal(statistics.level_0[2], before[2])
    assert torch.equal(statistics.level_0[0], before[2])


def built(kind, layout, **options):
    if kind == "flow":
        model = FlowGMM(
            layout, couplings=2, condition_channels=8, smoothing_sigma=1.0, **options
        )
        model.add_categories([0, 1])
        return model.eval()
    model = FeatureGMM(layout, smoothing_sigma=1.0, **options)
    generator = torch.Generator().manual_seed(5)
    for category in (0, 1):
        x = torch.randn(12, layout.size, generator=generator) + 2 * category
        model.fit_category(category, x)
    return model.eval()


def normals(features, count=6):
    x = torch.cat([features(count, seed=c) + 2 * c for c in (0, 1)])
    return x, torch.arange(2).repeat_interleave(count)


@pytest.mark.parametrize("kind", ["flow", "feature"])
def test_scores_are_of_what_is_standardised(kind, layout, features):
    model = built(kind, layout, position_calibration=True)
    x, y = normals(features)
    model.calibrate([(x[:5], y[:5]), (x[5:], y[5:])])
    test, category = features(4, seed=9), torch.tensor([0, 1, 1, 0])
    outputs = model(x), model(test)

    def levels(kind, output, category):
        if kind == "likelihood":
            return model.log_likelihood_levels(latents_of(output), category)
        found = model.negative_entropy_levels(latents_of(output), category)
        return [level.exp() for level in found]

    product = 1.0
    for kind in ("likelihood", "uncertainty"):
        terms = []
        for own, level in zip(
            levels(kind, outputs[0], y), levels(kind, outputs[1], category), strict=True
        ):
            parts = []
            for row, c in enumerate(category.tolist()):
                mean, deviation = standard_of(own[y == c])
                largest = ((own[y == c] - mean) / deviation).max()
                standard = (level[row] - mean) / deviation - largest
                parts.append(1 + standard.clamp(max=0))
            terms.append(torch.stack(parts))
        expected = (len(terms) - normality_map(terms, MASK, 1.0)).detach()
        maps = model.score(outputs[1], MASK, category, kind=kind).maps
        torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)
        product = product * maps
    scores = model.score(outputs[1], MASK, category, kind="product")
    torch.testing.assert_close(scores.maps, product)


def test_what_is_unusual_at_the_border_of_every_image_is_undone():
    """Rows that normals always vary in no longer hide a defect elsewhere."""
    layout = FeatureLayout(((12, 12, 6),))
    generator = torch.Generator().manual_seed(1)

    def images(count, defect=0.0):
        level = torch.randn(count, 12, 12, 6, generator=generator)
        level[:, 0] *= 8
        level[:, 7:9, 7:9] += defect
        return layout.flatten([level])

    train, good, bad = images(48), images(40), images(40, defect=4.0)
    ranked = {}
    for calibration in (False, True):
        model = FeatureGMM(layout, position_calibration=calibration).eval()
        model.fit_category(0, train)
        model.calibrate([(train, torch.zeros(len(train), dtype=torch.long))])
        images_of = (good, bad)
        found = [model.score(model(x), (96, 96)).image for x in images_of]
        ranked[calibration] = float((found[1][:, None] > found[0]).float().mean())
    assert ranked[False] < 0.7
    assert ranked[True] > 0.9


@pytest.mark.parametrize("kind", ["flow", "feature"])
def test_statistics_are_copied_saved_and_loaded(kind, layout, features, tmp_path):
    model = built(kind, layout, position_calibration=True)
    x, y = normals(features)
    model.calibrate([(x, y)])
    options = {"position_calibration": True, "smoothing_sigma": 1.0}
    if kind == "flow":
        options |= {"couplings": 2, "condition_channels": 8}
    save_model(model, tmp_path, f"{kind}_gmm", options, {})
    loaded, _ = load_model(tmp_path)
    test = features(3, seed=4)
    expected = model.score(model(test), MASK).maps
    for other in (loaded, copy.deepcopy(model)):
        assert torch.equal(other.score(other(test), MASK).maps, expected)


def test_without_it_there_is_nothing_to_save(layout):
    model = FeatureGMM(layout, position_calibration=False)
    assert not len(model.positions)
    assert not [name for name in model.state_dict() if "positions" in name]
