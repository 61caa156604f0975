"""Every kind of file becomes RGB or booleans; every damage becomes one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from avalanche_ad.datasets.loading import (
    file_digest,
    image_remarks,
    image_size,
    load_image,
    resize_image,
)
from avalanche_ad.datasets.masks import load_mask, read_mask, resize_mask
from avalanche_ad.errors import DatasetError

COLOUR = hnp.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))
)
GREY = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
GREY16 = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
on_disk = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def save(tmp_path):
    def write(image: Image.Image, name: str = "image.png", **options) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return write


def told(path: Path) -> str:
    return "; ".join(map(str, image_remarks(path)))


@on_disk
@given(pixels=COLOUR, suffix=st.sampled_from([".png", ".bmp", ".tif", ".TIFF"]))
def test_colour_is_kept(save, pixels, suffix):
    path = save(Image.fromarray(pixels), f"image{suffix}")
    np.testing.assert_array_equal(load_image(path), pixels)
    assert image_size(path) == pixels.shape[:2]
    assert image_remarks(path) == []


@on_disk
@given(pixels=GREY)
def test_grey_becomes_three_equal_channels(save, pixels):
    path = save(Image.fromarray(pixels))
    image = load_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.stack([pixels] * 3, axis=2))
    assert "grey" in told(path)


@on_disk
@given(pixels=GREY16, suffix=st.sampled_from(["png", "tif"]))
def test_sixteen_bit_is_scaled_by_its_full_range(save, pixels, suffix):
    path = save(Image.fromarray(pixels), f"image.{suffix}")
    expected = np.rint(pixels / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(load_image(path), np.stack([expected] * 3, axis=2))
    assert "16-bit" in told(path)


def test_sixteen_bit_that_uses_few_bits_is_described_as_dark(save):
    path = save(Image.fromarray(np.full((4, 4), 4095, dtype=np.uint16)))
    assert "12 bits are used, nearly black once scaled" in told(path)
    path = save(Image.fromarray(np.full((4, 4), 16383, dtype=np.uint16)))
    assert "14 bits are used, dark once scaled by 65535" in told(path)


@on_disk
@given(pixels=COLOUR, alpha=st.integers(0, 255))
def test_alpha_is_dropped_not_blended(save, pixels, alpha):
    image = Image.fromarray(pixels)
    image.putalpha(alpha)
    path = save(image)
    np.testing.assert_array_equal(load_image(path), pixels)
    assert "alpha" in told(path)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(save, mode):
    source = Image.fromarray(np.full((5, 4, 3), 255, dtype=np.uint8)).convert(mode)
    path = save(source, "image.jpg" if mode in {"CMYK", "YCbCr"} else "image.png")
    image = load_image(path)
    assert image.shape == (5, 4, 3)
    assert image.dtype == np.uint8
    assert image.min() >= 180


def test_palette_with_transparency_is_read_without_a_warning(save):
    image = Image.fromarray(np.eye(4, dtype=np.uint8), mode=None).convert("P")
    path = save(image, transparency=bytes([0, 128]))
    assert load_image(path).shape == (4, 4, 3)


def test_exif_orientation_is_ignored_and_described(save):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.zeros((5, 9, 3), dtype=np.uint8))
    path = save(image, "image.jpg", exif=exif)
    assert load_image(path).shape == (5, 9, 3)
    assert "EXIF" in told(path)


@on_disk
@given(pixels=GREY, top=st.sampled_from([1, 15, 63]))
def test_mask_that_numbers_its_defects_is_true_wherever_not_zero(save, pixels, top):
    pixels = pixels % (top + 1) // (top // 16 + 1)  # at most 16 numbers
    mask, remarks = read_mask(save(Image.fromarray(pixels)))
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, pixels != 0)
    assert not remarks


def labelled(values, side: int, gap: int, kind: type = np.uint8) -> np.ndarray:
    """Return squares of values in rows of five."""
    step = side + gap
    pixels = np.zeros((6 * step, 6 * step), dtype=kind)
    for number, value in enumerate(values):
        y, x = (step * place + gap for place in divmod(number, 5))
        pixels[y : y + side, x : x + side] = value
    return pixels


@on_disk
@given(
    values=st.lists(st.integers(1, 255), min_size=1, max_size=25),
    size=st.sampled_from([(6, 1), (8, 0), (9, 2), (3, 1)]),
)
def test_mask_whose_values_fill_areas_is_true_wherever_not_zero(save, values, size):
    pixels = labelled(values, *size)
    mask, remarks = read_mask(save(Image.fromarray(pixels)))
    np.testing.assert_array_equal(mask, pixels != 0)
    assert not remarks


@pytest.mark.parametrize(
    "pixels",
    [
        labelled(range(1, 21), 8, 0),
        labelled([1, 65535], 6, 1, np.uint16),
        labelled([1, 70000], 6, 1, np.int32),
        labelled([-1, 3], 6, 1, np.int32),
        np.kron(np.array([[0, 20, 0], [0, 0, 200]], np.uint8), np.ones((9, 9), "u1")),
    ],
    ids=["twenty", "16 bits", "32 bits", "negative", "far apart"],
)
def test_labels_of_any_depth_count(save, pixels):
    path = save(Image.fromarray(pixels), "mask.tif")
    np.testing.assert_array_equal(load_mask(path), pixels != 0)


def test_labels_by_colour_count_however_bright(save):
    pixels = np.zeros((40, 40, 3), dtype=np.uint8)
    pixels[3:12, 3:12, 0], pixels[20:30, 20:30, 1] = 20, 200
    np.testing.assert_array_equal(
        load_mask(save(Image.fromarray(pixels))), pixels.any(2)
    )


def test_thin_and_small_defects_of_half_the_brightness_count(save):
    pixels = np.zeros((40, 40), dtype=np.uint8)
    pixels[5, 3:30] = pixels[20, 20] = 100
    pixels[30:35, 3:30] = 255
    np.testing.assert_array_equal(load_mask(save(Image.fromarray(pixels))), pixels > 0)
    pixels = np.where(pixels == 255, 128, np.where(pixels > 0, 128, 0)).astype("u1")
    np.testing.assert_array_equal(load_mask(save(Image.fromarray(pixels))), pixels > 0)


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 16])
def test_smoothed_edges_count_from_half_on_however_many_levels_they_have(save, factor):
    side = 64 * factor
    y, x = np.mgrid[:side, :side] / factor
    disc = (y - 30) ** 2 + (x - 33) ** 2 < 15.3**2
    share = disc.reshape(64, factor, 64, factor).mean((1, 3))
    pixels = np.round(255 * share).astype(np.uint8)
    mask, (remark,) = read_mask(save(Image.fromarray(pixels)))
    np.testing.assert_array_equal(mask, pixels >= 127.5)
    assert "blurred edges" in str(remark)


@pytest.mark.parametrize("quality", [50, 75, 90, 98])
@pytest.mark.parametrize("name", ["mask.png", "mask.bmp"])
def test_what_a_lossy_format_left_stays_noise_in_another(save, quality, name):
    drawn = square(96).astype(np.uint8) * 255
    lossy = Image.open(save(Image.fromarray(drawn), "a.jpg", quality=quality))
    assert (np.asarray(lossy) > 0).sum() >= square(96).sum()
    mask = load_mask(save(lossy, name))
    np.testing.assert_array_equal(mask, square(96))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask.webp", {"quality": 60}),
        ("mask.tif", {"compression": "jpeg"}),
        ("mask.jpg", {}),
    ],
)
def test_a_flat_value_in_a_lossy_format_may_be_its_loss(save, name, options):
    pixels = np.full((48, 48, 3), 4, dtype=np.uint8)
    pixels[square()] = 250
    path = save(Image.fromarray(pixels), name, **options)
    np.testing.assert_array_equal(load_mask(path), square())


def square(side: int = 48) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.bool_)
    mask[16:32, 8:32] = True
    return mask


@pytest.mark.parametrize("name", ["mask.png", "mask.jpg", "mask.webp", "mask.tif"])
@pytest.mark.parametrize("noise", [(1, 9), (0, 9), (0, 40)])
def test_noise_of_a_mask_is_no_defect(save, name, noise):
    dark = np.random.default_rng(0).integers(*noise, (48, 48))
    pixels = np.where(square(), 255 - dark, dark).astype(np.uint8)
    options = {"quality": 75} if name.endswith(("jpg", "webp")) else {}
    mask, remarks = read_mask(save(Image.fromarray(pixels), name, **options))
    np.testing.assert_array_equal(mask, square())
    (remark,) = remarks
    assert remark.telling
    assert "from half of their brightest value on" in str(remark)


def test_blurred_edges_of_a_mask_are_cut_at_half(save):
    large = Image.fromarray(square(96).astype(np.uint8) * 255)
    path = save(large.resize((50, 50), Image.Resampling.BILINEAR))
    mask, remarks = read_mask(path)
    np.testing.assert_array_equal(mask, np.asarray(Image.open(path)) >= 127.5)
    assert "blurred edges" in str(remarks[0])


def test_mask_in_a_lossy_format_that_lost_nothing_is_told_by_check_alone(save):
    image = Image.new("L", (16, 16), 255)
    mask, (remark,) = read_mask(save(image, "mask.jpg"))
    assert mask.all()
    assert not remark.telling
    assert "lossy" in str(remark)


def test_mask_that_is_nearly_black_is_told(save):
    pixels = np.random.default_rng(0).integers(0, 30, (48, 48)).astype(np.uint8)
    _, (remark,) = read_mask(save(Image.fromarray(pixels), "mask.jpg"))
    assert "nearly black" in str(remark)
    assert remark.telling


@pytest.mark.parametrize("colour", [0, 255])
def test_mask_whose_colour_says_nothing_is_in_its_alpha_channel(save, colour):
    pixels = np.full((48, 48, 4), colour, dtype=np.uint8)
    pixels[:, :, 3] = square() * 255
    mask, (remark,) = read_mask(save(Image.fromarray(pixels)))
    np.testing.assert_array_equal(mask, square())
    assert "alpha" in str(remark)
    assert remark.telling


def test_transparent_pixels_of_a_mask_are_background(save):
    pixels = np.zeros((48, 48, 4), dtype=np.uint8)
    pixels[:, :, 3] = square() * 255
    pixels[20:, :, :3] = 255
    mask, (remark,) = read_mask(save(Image.fromarray(pixels)))
    expected = square()
    expected[:20] = False
    np.testing.assert_array_equal(mask, expected)
    assert "transparent" in str(remark)


UPRIGHT = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def oriented(save, pixels, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(Image.fromarray(np.ascontiguousarray(pixels)), name, exif=exif)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("own", [1, 3, 6])
def test_mask_drawn_on_the_upright_image_is_turned_back(save, orientation, own):
    """As Pillow, and NumPy above, turn; the mask may be stored turned itself."""
    stored = np.zeros((12, 20), dtype=np.uint8)
    stored[1:4, 2:9] = 255
    colour = np.repeat(stored[:, :, None], 3, axis=2)
    image = oriented(save, colour, "image.jpg", orientation)
    with Image.open(image) as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened))
        np.testing.assert_array_equal(shown, UPRIGHT[orientation](np.asarray(opened)))
    drawn = UPRIGHT[orientation](stored)
    if own != 1:  # turning by 90 degrees the other way, or by 180, takes it back
        drawn = UPRIGHT[{3: 3, 6: 8}[own]](drawn)
    path = oriented(save, drawn, "mask.png", own)
    mask, remarks = read_mask(path, image)
    same_way = (own == 6) == (orientation >= 5)
    if own == orientation:
        assert not remarks
    elif same_way:
        assert "which their size does not tell" in str(remarks[0])
        np.testing.assert_array_equal(mask, drawn > 0)
        return
    else:
        assert "turned back" in str(remarks[0])
    np.testing.assert_array_equal(mask, stored > 0)


def test_mask_drawn_on_the_stored_pixels_stays(save):
    stored = np.zeros((12, 20), dtype=np.uint8)
    stored[1:4, 2:9] = 255
    colour = np.repeat(stored[:, :, None], 3, axis=2)
    image = oriented(save, colour, "image.jpg", 6)
    mask, remarks = read_mask(save(Image.fromarray(stored), "mask.png"), image)
    np.testing.assert_array_equal(mask, stored > 0)
    assert not remarks


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_mask_reads_the_same_in_every_mode(save, mode):
    expected = np.eye(6, dtype=np.bool_)
    if mode == "I;16":
        source = Image.fromarray(expected.astype(np.uint16) * 300)
    else:
        source = Image.fromarray(expected.astype(np.uint8) * 255).convert(mode)
    np.testing.assert_array_equal(load_mask(save(source)), expected)


def test_mask_goes_by_colour_where_palette_index_zero_is_white(save):
    image = Image.fromarray(np.eye(3, dtype=np.uint8)).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    np.testing.assert_array_equal(load_mask(save(image)), ~np.eye(3, dtype=np.bool_))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not an image"),
        (b"plain text", "not an image"),
        (None, "file not found"),
    ],
)
@pytest.mark.parametrize("load", [load_image, load_mask, image_size])
def test_what_is_no_image_gives_one_line(tmp_path, load, content, expected):
    path = tmp_path / "000.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=expected) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_floating_point_image_is_refused(save):
    path = save(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "image.tif")
    with pytest.raises(DatasetError, match="floating-point .* convert to 8 or 16 bits"):
        load_image(path)


def test_thirty_two_bit_image_is_refused(save):
    path = save(Image.fromarray(np.full((4, 4), 1 << 20, dtype=np.int32)), "image.tif")
    with pytest.raises(DatasetError, match="within 0-65535, found 1048576"):
        load_image(path)


def test_decompression_bomb_is_refused(save, monkeypatch):
    path = save(Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)))
    for limit in (1000, 100):  # Pillow warns above its limit, and fails above twice
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DatasetError, match=f"more than {limit:,} pixels; cut"):
            load_image(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_is_one_line_or_harmless(tmp_path_factory, suffix, data):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    name = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    Image.fromarray(pixels).save(buffer, name)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    del content[data.draw(st.integers(0, len(content))) :]
    path = tmp_path_factory.mktemp("damage") / f"image.{suffix}"
    path.write_bytes(content)
    message = ""
    try:
        assert load_image(path).ndim == 3
    except DatasetError as error:
        message = str(error)
    assert not message or message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_truncated_file_is_refused(save, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    path = save(Image.fromarray(pixels), f"image.{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DatasetError, match="truncated.*replace or remove"):
        load_image(path)


@given(pixels=COLOUR, size=st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_resize_gives_a_square(pixels, size):
    resized = resize_image(pixels, size)
    assert resized.shape == (size, size, 3)
    assert resized.dtype == np.uint8
    assert pixels.min() <= resized.min() <= resized.max() <= pixels.max()


def test_resize_averages_when_it_shrinks():
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    inner = resize_image(stripes, 8)[1:-1, 1:-1].astype(int)
    assert abs(inner - 127).max() <= 1


@given(factor=st.integers(1, 4), size=st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_mask_resize_is_nearest(factor, size):
    mask = np.random.default_rng(size).random((size, size)) < 0.5
    large = resize_mask(mask, size * factor)
    assert large.dtype == np.bool_
    np.testing.assert_array_equal(large, np.kron(mask, np.ones((factor,) * 2)) > 0)


@pytest.mark.parametrize("resize", [resize_image, resize_mask])
def test_resize_refuses_a_size_that_is_not_positive(resize):
    with pytest.raises(DatasetError, match="at least 1 pixel, got 0"):
        resize(np.zeros((4, 4), dtype=np.uint8), 0)


def test_digest_goes_by_content(tmp_path):
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (file_digest(tmp_path / name) for name in "abc")
    assert a == b != c
    assert len(a) == 32
    with pytest.raises(DatasetError, match="missing: file not found"):
        file_digest(tmp_path / "missing")
