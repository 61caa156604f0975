import pytest
import torch
from torch.nn.functional import grid_sample

from pretraining.augmentation import (
    colour_jitter,
    crop,
    crop_windows,
    places_in_both,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(16, 3, 24, 24, generator=seeded(9))


def test_views_repeat_for_a_seed_and_differ_between_images():
    one = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8, generator=seeded())
    images = one.expand(8, -1, -1, -1)

    def draw():
        generator = seeded(3)
        whole = images.float() / 255
        return colour_jitter(crop(whole, crop_windows(8, generator), 16), generator)

    views = draw()
    assert views.shape == (8, 3, 16, 16)
    assert torch.equal(views, draw())
    assert len(views.flatten(1).unique(dim=0)) == 8


def test_a_crop_of_everything_is_the_image_or_its_mirror(images):
    crops = crop(images, crop_windows(16, seeded(), (1.0, 1.0), aspect=1.0), 24)
    same = torch.isclose(crops, images, atol=1e-5).flatten(1).all(1)
    mirrored = torch.isclose(crops, images.flip(3), atol=1e-5).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 0 < int(same.sum()) < 16


def test_crops_show_a_part_of_the_size_asked_for():
    """Of a ramp a crop keeps the slope times the share of its side."""
    ramp = torch.linspace(0, 1, 64).expand(32, 3, 64, 64)
    crops = crop(ramp, crop_windows(32, seeded(), (0.25, 0.25), aspect=1.0), 64)
    width = (crops[:, 0, 0, -1] - crops[:, 0, 0, 0]).abs()
    torch.testing.assert_close(width, torch.full((32,), 0.5), atol=0.02, rtol=0)


def test_places_in_both_crops_show_the_same():
    """Colours that are coordinates are the same in both crops."""
    axis = (2 * torch.arange(64) + 1) / 64 - 1
    image = torch.stack([axis.expand(64, 64), axis[:, None].expand(64, 64)])
    images = torch.cat([image, torch.zeros(1, 64, 64)]).expand(32, -1, -1, -1)
    windows = [crop_windows(32, seeded(seed)) for seed in (0, 1)]
    places = places_in_both(*windows, 8, seeded(2))
    edge = {"align_corners": False, "padding_mode": "border"}
    shown = [
        grid_sample(crop(images, w, 64), p[:, :, None], **edge)[:, :2, :, 0]
        for w, p in zip(windows, places, strict=True)
    ]
    assert all(float(p.abs().max()) <= 1 + 1e-5 for p in places)
    torch.testing.assert_close(shown[0], shown[1], atol=0.03, rtol=0)
    assert float(shown[0].std()) > 0.2


def test_no_strength_changes_no_colour(images):
    jittered = colour_jitter(images, seeded(), strength=0.0, grey=0.0)
    torch.testing.assert_close(jittered, images)


def test_the_share_that_becomes_grey_is_grey(images):
    grey = colour_jitter(images, seeded(), strength=0.4, grey=1.0)
    torch.testing.assert_close(grey[:, :1].expand_as(grey), grey)
