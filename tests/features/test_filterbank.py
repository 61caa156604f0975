import numpy as np
import pytest
import torch

from avalanche_ad.errors import RecipeError
from avalanche_ad.features import FilterBank
from avalanche_ad.features.backbones.filterbank import gabor_pairs, opponent_colors
from avalanche_ad.features.whitening import draw_image, statistics


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(3)
    return torch.from_numpy(
        np.stack([draw_image(128, generator) for _ in range(2)])
    ).float()


def test_levels_are_of_equal_width_and_match_the_layout(images):
    bank = FilterBank()
    levels = bank(images)
    assert [tuple(level.shape) for level in levels] == [
        (2, 32, 32, 45),
        (2, 16, 16, 45),
    ]
    assert bank.layout(128).flatten(levels).shape == (2, bank.layout(128).size)


@pytest.mark.parametrize("size", [80, 97, 130])
def test_any_size_gives_the_layout_it_announces(size):
    bank = FilterBank()
    levels = bank(torch.rand(1, 3, size, size))
    assert tuple(tuple(level.shape[1:]) for level in levels) == bank.layout(size).levels


def test_same_images_same_features(images):
    first, second = FilterBank(), FilterBank()
    for one, other in zip(first(images), second(images), strict=True):
        assert torch.equal(one, other)
    assert first.fingerprint() == second.fingerprint()


def test_an_image_does_not_depend_on_its_batch(images):
    bank = FilterBank()
    for whole, alone in zip(bank(images), bank(images[:1]), strict=True):
        torch.testing.assert_close(whole[:1], alone, rtol=1e-4, atol=1e-4)


def test_a_mirrored_image_has_mirrored_energies(images):
    bank = FilterBank(strides=(4,), whiten=False)
    (level,) = bank(images)
    (mirrored,) = bank(images.flip(3))
    # Orientation i of 6 becomes 6 - i; orientation 0 stays.
    order = [0, 5, 4, 3, 2, 1]
    expected = level[..., :6].flip(2)[..., order]
    torch.testing.assert_close(mirrored[..., :6], expected, rtol=1e-3, atol=1e-3)


def test_features_follow_a_shift_by_whole_strides():
    bank = FilterBank(strides=(4,))
    wide = torch.rand(1, 3, 256, 272)
    (left,) = bank(wide[..., :256])
    (right,) = bank(wide[..., 16:])
    torch.testing.assert_close(
        left[:, 30:34, 32:36], right[:, 30:34, 28:32], rtol=1e-3, atol=1e-3
    )


def test_a_uniform_image_has_no_contrast():
    (level,) = FilterBank(strides=(4,), whiten=False)(torch.full((1, 3, 128, 128), 0.4))
    torch.testing.assert_close(
        level[..., :30].exp(), torch.full((1, 32, 32, 30), 0.01), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        level[..., 30], torch.full((1, 32, 32), 0.4), rtol=1e-4, atol=1e-4
    )


def test_energy_peaks_at_the_orientation_of_a_grating():
    columns = torch.arange(128)
    grating = (0.5 + 0.4 * torch.sin(2 * torch.pi * columns / 4 + 0.3)).expand(
        1, 3, 128, 128
    )
    (level,) = FilterBank(strides=(4,), whiten=False)(grating)
    assert (level[0, 16, 16, :6].argmax()) == 0
    # A quadrature pair's amplitude does not depend on the grating's phase.
    (moved,) = FilterBank(strides=(4,), whiten=False)(grating.roll(1, dims=3))
    assert abs(level[0, 16, 16, 0] - moved[0, 16, 16, 0]) < 0.05


def test_gabor_filters_ignore_brightness_and_have_unit_norm():
    filters = gabor_pairs(6, 4.0, 1.8, 4)
    torch.testing.assert_close(
        filters.sum((1, 2, 3)), torch.zeros(12), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(12))


def test_grey_has_no_opponent_colors():
    grey = torch.rand(1, 1, 4, 4).expand(1, 3, 4, 4)
    torch.testing.assert_close(
        opponent_colors(grey)[:, 1:], torch.zeros(1, 2, 4, 4), atol=1e-6, rtol=0
    )


def test_whitening_decorrelates_images_like_those_it_was_made_from():
    generator = np.random.default_rng(11)
    drawn = torch.from_numpy(
        np.stack([draw_image(128, generator) for _ in range(12)])
    ).float()
    for level in FilterBank()(drawn):
        rows = level.flatten(0, 2)
        correlation = torch.corrcoef(rows.T) - torch.eye(45)
        assert correlation.abs().mean() < 0.15
        assert rows.std(dim=0).min() > 0.3
        assert rows.std(dim=0).max() < 2.0


def test_statistics_whiten_what_they_were_computed_from():
    generator = np.random.default_rng(5)
    drawn = torch.from_numpy(
        np.stack([draw_image(160, generator) for _ in range(3)])
    ).float()
    found = statistics(drawn)
    rows = FilterBank(strides=(4,), whiten=False)(drawn)[0].flatten(0, 2)
    covariance = torch.cov(((rows - found["mean_4"]) @ found["matrix_4"]).T)
    assert (covariance - covariance.diagonal().diag()).abs().mean() < 0.05


def test_nothing_trains_and_training_mode_is_refused():
    bank = FilterBank().train()
    assert not bank.training
    assert not list(bank.parameters())


def test_fingerprint_tells_options_and_content_apart():
    prints = {
        FilterBank().fingerprint(),
        FilterBank(whiten=False).fingerprint(),
        FilterBank(strides=(4,)).fingerprint(),
    }
    assert len(prints) == 3
    changed = FilterBank()
    changed.get_buffer("matrix_4")[0, 0] += 1e-3
    assert changed.fingerprint() not in prints


def test_calls_are_counted_but_not_those_for_the_layout(images):
    bank = FilterBank()
    bank.layout(128)
    assert bank.calls == 0
    bank(images)
    assert bank.calls == 1


@pytest.mark.parametrize("strides", [(), (8, 4), (4, 4), (3,), (4, 32), 4.5])
def test_wrong_strides_are_refused(strides):
    with pytest.raises(RecipeError, match="strides must be rising numbers out of"):
        FilterBank(strides=strides)


def test_small_images_are_refused_with_the_size_needed():
    with pytest.raises(RecipeError, match="take 80 pixels or more"):
        FilterBank()(torch.zeros(1, 3, 64, 64))


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(N, 3, height, width\)"):
        FilterBank()(torch.zeros(3, 128, 128))
