"""Whatever an image file holds: one line or an image, and none silently black.

The files go through what ``check``, ``run`` and ``predict`` do with them.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from avalanche_ad.benchmarks import anomaly_benchmark
from avalanche_ad.datasets import find_problems, open_dataset, verify
from avalanche_ad.datasets.loading import (
    IMAGE_SUFFIXES,
    image_remarks,
    load_image,
    read_header,
)
from avalanche_ad.datasets.masks import read_mask
from avalanche_ad.errors import AvalancheADError, DatasetError
from avalanche_ad.experiments.prediction import predict_images
from avalanche_ad.features import Backbone, FeatureCache

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:PIL")]

FORMATS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "TIFF": (
        "1",
        "L",
        "LA",
        "P",
        "PA",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "I;16",
        "I",
        "F",
    ),
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "P", "RGB"),
    "PNG16": ("grey", "grey alpha", "RGB", "RGBA"),
    "TIFF16": ("grey", "RGB", "RGBA", "white is zero", "planes", "CMYK"),
}
CHANNELS = {"grey": 1, "white is zero": 1, "grey alpha": 2, "RGBA": 4, "CMYK": 4}


@dataclass(frozen=True)
class File:
    """An image file to be made.

    :param kind: format and mode.
    :param size: height and width.
    :param seed: of its pixels.
    :param bits: how many are used where the file has more than 8.
    :param suffix: of its name, whatever the format.
    :param orientation: in its EXIF data, 0 for none.
    :param frames: how many it has, where the format lets it.
    :param cut: share of the file that is kept.
    :param flips: bits that are turned over: share of the file, bit.
    """

    kind: tuple[str, str]
    size: tuple[int, int] = (12, 20)
    seed: int = 0
    bits: int = 16
    suffix: str = ".png"
    orientation: int = 0
    frames: int = 1
    cut: float = 1.0
    flips: tuple[tuple[float, int], ...] = ()

    @property
    def drawn(self):
        """Grey, a mean of about 0.6 and visible contrast, (H, W) in [0, 1]."""
        return np.random.default_rng(self.seed).uniform(0.2, 1.0, self.size)


files = st.builds(
    File,
    kind=st.sampled_from([(f, mode) for f, modes in FORMATS.items() for mode in modes]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
    bits=st.integers(8, 16),
    suffix=st.sampled_from(sorted(IMAGE_SUFFIXES)),
    orientation=st.integers(0, 9),
    frames=st.integers(1, 2),
)
damaged = st.builds(
    replace,
    files,
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=4).map(
        tuple
    ),
)


@pytest.fixture
def encode(png16, tiff16):
    """Return a function that makes the file's content."""

    def deep(file):
        form, mode = file.kind
        channels = CHANNELS.get(mode, 3)
        drawn = np.rint(file.drawn * (2**file.bits - 1))
        pixels = np.repeat(drawn[:, :, None], channels, axis=2).astype(np.uint16)
        if form == "PNG16":
            return png16(pixels, (0, 1, 2, 3, 4))
        if mode == "white is zero":
            return tiff16(65535 - pixels, photometric=0)
        if mode == "CMYK":  # ink, of all bits
            pixels[:] = np.rint((1 - file.drawn) * 65535)[:, :, None]
            pixels[:, :, 3] = 0
            return tiff16(pixels, photometric=5)
        planar, extra = 1 + (mode == "planes"), 2 if mode == "RGBA" else None
        photometric = 1 if channels == 1 else 2
        return tiff16(pixels, "<>"[file.seed % 2], planar, False, photometric, extra)

    def shallow(file):
        form, mode = file.kind
        if mode == "F":
            image = Image.fromarray(file.drawn.astype(np.float32))
        elif mode.startswith("I"):
            kind = np.uint16 if mode == "I;16" else np.int32
            pixels = np.rint(file.drawn * (2**file.bits - 1)).astype(kind)
            image = Image.fromarray(pixels)
        else:
            grey = np.rint(file.drawn * 255).astype(np.uint8)
            image = Image.fromarray(np.repeat(grey[:, :, None], 3, axis=2))
            # no conversion of Pillow makes this one
            image = image.convert("P").convert("PA") if mode == "PA" else image
            image = image if mode == "PA" else image.convert(mode)
        options = {}
        if file.orientation and form not in {"BMP", "GIF"}:
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = file.orientation
        if file.frames > 1 and form in {"TIFF", "GIF", "WEBP"}:
            options |= {"save_all": True, "append_images": [image.copy()]}
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    def content(file):
        made = bytearray(deep(file) if file.kind[0].endswith("16") else shallow(file))
        for where, bit in file.flips:
            made[int(where * (len(made) - 1))] ^= 1 << bit
        return bytes(made[: round(file.cut * len(made))])

    return content


@pytest.fixture
def write(tmp_path, encode):
    """Return a function that writes the file under a name that was not there."""
    numbers = itertools.count()

    def path(file):
        found = tmp_path / f"{next(numbers)}{file.suffix}"
        found.write_bytes(encode(file))
        return found

    return path


on_disk = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PAST = {  # what was silently wrong once
    "12-bit colour in 16-bit PNG": File(("PNG16", "RGB"), bits=12),
    "with alpha": File(("PNG16", "RGBA"), bits=12),
    "grey with alpha": File(("PNG16", "grey alpha"), bits=12),
    "in TIFF": File(("TIFF16", "RGB"), bits=12, suffix=".tif"),
    "in planes, which were read as 8-bit": File(("TIFF16", "planes"), bits=16),
    "grey whose zero is white": File(("TIFF16", "white is zero")),
    "8 bits in 32-bit integers": File(("TIFF", "I"), bits=8),
}


def lines_of(action, *arguments):
    """Return what an action gives, or its error once it is one line."""
    try:
        return action(*arguments)
    except DatasetError as error:
        line = str(error)
    assert "\n" not in line
    assert line.startswith(str(arguments[0]))
    return line


def check_not_silently_black(write, file):
    path = write(file)
    image = lines_of(load_image, path)
    if isinstance(image, str):
        assert file.kind[1] == "F", image
        assert "floating-point" in image
        return
    sizes = (file.size, file.size[::-1])
    assert image.shape[:2] in sizes
    assert image.shape[:2] == file.size or file.kind[0] == "TIFF"  # turned upright
    told = [str(remark) for remark in image_remarks(path) if remark.telling]
    if any("once scaled by" in line for line in told):
        assert file.bits <= 14
        return
    values = image.astype(float) / 255
    if file.kind[1] != "1":  # a few dithered pixels may all be black
        assert values.mean() > 0.15
    if values.size > 300:
        deep = "16" in "".join(file.kind) or file.kind[1] == "I"
        expected = file.drawn * (2 ** (file.bits - 16) if deep else 1)
        if file.kind[1] == "CMYK":
            expected = file.drawn
        assert values.mean() == pytest.approx(expected.mean(), abs=0.1)
        assert values.std() > 0.5 * expected.std()


@given(file=files)
@settings(on_disk, max_examples=150)
def test_no_image_is_silently_black(write, file):
    check_not_silently_black(write, file)


@pytest.mark.parametrize("file", PAST.values(), ids=PAST)
def test_what_was_silently_wrong_once_is_right_or_told(write, file):
    check_not_silently_black(write, file)


@given(file=damaged)
@example(file=File(("PNG", "RGB"), cut=0.0))
@example(file=File(("JPEG", "RGB"), orientation=6, cut=0.5, suffix=".jpg"))
@settings(on_disk, max_examples=200)
def test_a_damaged_file_is_one_line_or_an_image(write, file):
    path = write(file)
    image = lines_of(load_image, path)
    assert isinstance(image, str) or (image.dtype, image.ndim) == (np.uint8, 3)
    mask = lines_of(read_mask, path, path)
    assert isinstance(mask, str) or (mask[0].dtype, mask[0].ndim) == (np.bool_, 2)
    for action in (image_remarks, read_header):
        assert lines_of(action, path) is not None
    if not isinstance(image, str):
        assert not isinstance(lines_of(image_remarks, path), str), "it can be read"


class Means(Backbone):
    """Means of blocks of pixels, to make features of anything."""

    name = "means"

    def __init__(self):
        super().__init__()
        self.register_buffer("gain", torch.tensor(1.0))
        self.freeze()

    def describe(self):
        return {"kind": self.name}

    def extract(self, images):
        return [torch.nn.functional.avg_pool2d(images, 4).permute(0, 2, 3, 1)]


@given(first=damaged, second=damaged, mask=damaged)
@settings(on_disk, max_examples=40)
def test_check_and_run_end_in_lines(tmp_path_factory, encode, first, second, mask):
    root = tmp_path_factory.mktemp("set")
    for name, file in {
        "train/good/0": first,
        "train/good/1": replace(first, cut=1.0, flips=()),
        "test/good/0": second,
        "test/hole/0": replace(second, cut=1.0, flips=()),
        "ground_truth/hole/0_mask": mask,
    }.items():
        path = root / "bolt" / f"{name}{file.suffix}"
        path.parent.mkdir(parents=True) if not path.parent.exists() else None
        path.write_bytes(encode(file))
    data = open_dataset("folder", root)
    problems = find_problems(data)
    lines = [str(problem) for problem in problems]
    assert not any("\n" in line or "Error" in line for line in lines)
    errors = [str(p) for p in problems if p.severity == "error"]
    if errors:
        with pytest.raises(DatasetError):
            verify(data)
    else:
        verify(data)
    stopped, made = "", None
    try:
        made = anomaly_benchmark(
            data,
            n_experiences=1,
            image_size=16,
            backbone=Means(),
            cache=FeatureCache(root / "cache"),
        )
    except AvalancheADError as error:
        stopped = str(error)
    if made is None:
        assert stopped in lines, "a run stops for no reason that check does not list"
    else:
        assert len(made.train_stream[0].dataset) == 2
        assert all("expected at least 16 a side" in line for line in errors)


@given(chosen=st.lists(damaged, min_size=1, max_size=5))
@settings(on_disk, max_examples=8)
def test_predict_ends_in_lines(write, trained_run, chosen):
    images = [write(file) for file in chosen]
    lines, stopped = [], ""
    try:
        lines.extend(predict_images(trained_run.folder, images))
    except DatasetError as error:
        stopped = str(error)
    assert "\n" not in stopped
    assert stopped or [line["image"] for line in lines] == [
        str(path) for path in images
    ]
    for line in lines:
        assert ("error" in line) != np.isfinite(line.get("score", np.nan))
