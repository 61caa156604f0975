"""Colour of 16 bits a channel is read whole, however a file keeps it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets.deep_colour import is_deep_colour, load_deep_colour
from avalanche_ad.datasets.loading import image_remarks, load_image
from avalanche_ad.datasets.masks import load_mask

CHANNELS = {2: "grey and alpha", 3: "RGB", 4: "RGBA"}
FULL = 65535


def drawn(channels, height=9, width=7, top=FULL):
    generator = np.random.default_rng(channels)
    shape = (height, width, channels)
    return generator.integers(0, top, shape, np.uint16, endpoint=True)


def colour(pixels):
    return (
        np.repeat(pixels[:, :, :1], 3, 2) if pixels.shape[2] == 2 else pixels[:, :, :3]
    )


@pytest.fixture
def file(tmp_path):
    def write(content, name):
        path = tmp_path / name
        path.write_bytes(content)
        with Image.open(path) as image:
            assert is_deep_colour(image)
        return path

    return write


@pytest.mark.parametrize("channels", CHANNELS, ids=CHANNELS.values())
@pytest.mark.parametrize("size", [(1, 1), (9, 7), (40, 33)])
def test_png_is_read_whole_with_every_filter(file, png16, channels, size):
    pixels = drawn(channels, *size)
    path = file(png16(pixels, (0, 1, 2, 3, 4)), "a.png")
    np.testing.assert_array_equal(load_deep_colour(path), colour(pixels))
    expected = np.rint(colour(pixels) / FULL * 255).astype(np.uint8)
    np.testing.assert_array_equal(load_image(path), expected)
    assert "16-bit colour, scaled by 65535" in str(image_remarks(path)[0])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiff_is_read_whole(file, tiff16, order, deflate, planar, rows, channels):
    pixels = drawn(channels, 30, 20)
    extra = 2 if channels == 4 else None
    path = file(tiff16(pixels, order, planar, deflate, 2, extra, rows), "a.tif")
    found = load_deep_colour(path)
    if planar == 2 and deflate:  # the high bytes, repeated
        np.testing.assert_array_equal(found, colour(pixels) // 256 * 257)
    else:
        np.testing.assert_array_equal(found, colour(pixels))


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_that_was_multiplied_with_alpha_is_divided_again(
    file, tiff16, planar, order
):
    pixels = drawn(4, 30, 20)
    pixels[:, :, 3] = 40000
    whole = pixels.copy()
    share = pixels[:, :, :3].astype(np.int64) * 40000 // FULL
    pixels[:, :, :3] = share
    path = file(tiff16(pixels, order, planar, extra=1), "a.tif")
    assert np.abs(load_deep_colour(path).astype(int) - whole[:, :, :3]).max() <= 2


def test_channels_that_stand_for_nothing_are_dropped(file, tiff16):
    pixels = drawn(4)
    for planar in (1, 2):
        path = file(tiff16(pixels, planar=planar, extra=0), f"{planar}.tif")
        np.testing.assert_array_equal(load_deep_colour(path), pixels[:, :, :3])


def test_ink_of_sixteen_bits_becomes_rgb(file, tiff16):
    pixels = np.zeros((4, 5, 4), np.uint16)
    pixels[:2, :, 0] = FULL  # cyan
    path = file(tiff16(pixels, photometric=5), "a.tif")
    np.testing.assert_array_equal(load_deep_colour(path), pixels)
    image = load_image(path)
    assert (image[2:] == 255).all()
    assert (image[:2, :, 0] == 0).all()


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("channels", CHANNELS, ids=CHANNELS.values())
def test_colour_that_uses_few_bits_is_told(file, png16, bits, channels):
    pixels = drawn(channels, top=2**bits - 1)
    pixels[0, 0] = 2**bits - 1
    (remark, *_) = image_remarks(file(png16(pixels), "a.png"))
    dark = "dark" if bits == 14 else "nearly black"
    assert str(remark).startswith(
        f"16-bit colour of which {bits} bits are used, {dark} once"
    )
    assert remark.telling


def test_mask_of_sixteen_bit_colour_is_read_whole(file, png16):
    pixels = np.zeros((6, 5, 3), np.uint16)
    pixels[2:4, 1:3, 1] = 2  # zero in its high byte
    mask = load_mask(file(png16(pixels), "a.png"))
    np.testing.assert_array_equal(mask, pixels.any(axis=2))


@pytest.mark.parametrize("deflate", [False, True])
def test_grey_whose_zero_is_white_is_turned_around(tmp_path, tiff16, deflate):
    pixels = drawn(1)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff16(pixels, deflate=deflate, photometric=0))
    expected = np.rint((FULL - pixels) / FULL * 255).astype(np.uint8)
    np.testing.assert_array_equal(load_image(path), np.repeat(expected, 3, axis=2))
