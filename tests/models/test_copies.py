import pytest
import torch

from avalanche_ad.models.copies import copies_of


def features(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 300, generator=generator)


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_an_image_is_a_copy_of_the_first_that_it_equals_but_for_rounding(
    offset, scale, noise
):
    x = features(40) + offset
    of = torch.cat([torch.arange(40), torch.tensor([7, 3, 7, 39])])
    x = x[of] + noise * features(44, 1)
    assert copies_of(scale * x).tolist() == of.tolist()
    assert copies_of((scale * x).half().float()).tolist() == of.tolist()


def test_images_that_differ_by_little_more_than_noise_are_no_copies():
    scene = 1 + features(1)
    x = scene + 0.02 * features(30)  # one scene, and a camera's noise
    assert copies_of(x).tolist() == list(range(30))


def test_images_that_are_all_one_are_copies():
    x = features(1) + 1e-4 * features(20, 1)
    assert copies_of(x).tolist() == [0] * 20


def test_copies_are_found_wherever_they_lie():
    of = torch.tensor([0, 1, 2, 1, 0, 5, 6, 1])
    assert copies_of(features(10)[of]).tolist() == of.tolist()
    turned = copies_of(features(10)[of.flip(0)])
    assert turned.tolist() == [0, 1, 2, 3, 0, 5, 0, 3]


def test_more_images_than_are_compared_at_once(monkeypatch):
    of = torch.cat([torch.arange(30), torch.arange(0, 30, 7)])
    expected = copies_of(features(30)[of])
    monkeypatch.setattr("avalanche_ad.models.copies._ROWS", 8)
    assert copies_of(features(30)[of]).tolist() == expected.tolist() == of.tolist()


@pytest.mark.parametrize("count", [0, 1])
def test_none_or_one_has_no_copy(count):
    assert copies_of(features(count)).tolist() == list(range(count))
