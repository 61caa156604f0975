"""What commands say of their data: all that ``check`` says and matters, once."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets.notes import NOTE
from avalanche_ad.experiments.parallel import _Messages

FOLDER = """\
title = "Own"
dataset = "folder"
classes_per_experience = 1
image_size = 80
mask_size = 32
[features]
backbone = "filterbank"
"""


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(FOLDER)
    return path


@pytest.fixture
def data(tmp_path):
    """Two categories; images in a folder too deep, one turned, masks inverted."""
    root, generator = tmp_path / "set", np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.full((80, 80), 255, np.uint8)
    mask[20:40, 20:40] = 0
    for category in ("bolt", "gear"):
        names = [f"train/good/{n}" for n in range(4)]
        for name in [*names, "train/good/night/0", "test/good/0", "test/hole/0"]:
            path = root / category / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (80, 80, 3), np.uint8)
            Image.fromarray(pixels).save(path, exif=exif)
        path = root / category / "ground_truth/hole/0_mask.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(mask).save(path)
    return root


def notes(text):
    return [line for line in text.splitlines() if line.startswith("note: ")]


def test_a_run_says_what_check_lists_with_cached_features_too(
    cli, stream, data, tmp_path
):
    arguments = ("-b", stream, "--data", data)
    listed = cli("check", *arguments)
    assert listed.code == 0
    for words in ("a folder among images; 1 image in it", "inverted?", "EXIF"):
        assert words in listed.out
    found = []
    for number in range(2):
        out = ("--out", tmp_path / f"run{number}", "--cache", tmp_path / "cache")
        done = cli("run", *arguments, "-s", "feature_gmm", *out)
        assert done.code == 0, done.err
        found.append(notes(done.err))
    assert found[0] == found[1]
    passed_over, inverted, turned, images = found[0]
    assert "2 files below" in passed_over
    assert "are ignored: 1 image in bolt/train/good/night" in passed_over
    assert "2 masks of bolt, gear covering up to 94 % of the image" in inverted
    assert "2 masks of bolt, gear drawn either on the image as stored or as" in turned
    assert "12 images of bolt, gear with an EXIF orientation" in images


def test_a_comparison_says_it_once(cli, stream, data, tmp_path):
    out = ("--out", tmp_path / "runs", "--cache", tmp_path / "cache")
    arguments = ("-b", stream, "--data", data, "--strategies", "feature_gmm")
    done = cli("compare", *arguments, "--seeds", "0,1", *out)
    assert done.code == 0, done.err
    assert "[2/2] feature_gmm, seed 1" in done.err
    assert len(notes(done.err)) == 4
    again = cli("compare", *arguments, "--seeds", "0,1,2", *out)
    assert len(notes(again.err)) == 4, "another command says it again"


def test_runs_in_processes_of_their_own_leave_it_to_the_parent():
    sent = []
    log, handler = logging.getLogger("avalanche_ad.of_test"), _Messages(Pipe(sent))
    log.addHandler(handler)
    try:
        log.warning("on the data", extra=NOTE)
        log.warning("on this run")
    finally:
        log.removeHandler(handler)
    assert sent == [("warning", "on this run", "")]


class Pipe:
    """Takes what would go to the parent."""

    def __init__(self, sent):
        self.send = sent.append


@pytest.mark.skipif(os.name == "nt", reason="such names cannot be there")
def test_names_of_any_bytes_are_told_in_lines(cli, stream, data, tmp_path):
    good = os.fsencode(data / "bolt/train/good")
    for name in (b"\xff.txt", b"new\nline.txt"):
        Path(os.fsdecode(good + b"/" + name)).write_bytes(b"")
    arguments = ("-b", stream, "--data", data)
    listed = cli("check", *arguments)
    assert listed.code == 0
    assert "new line.txt: ignored: not an image" in listed.out
    out = ("--out", tmp_path / "run", "--cache", tmp_path / "cache")
    done = cli("run", *arguments, "-s", "feature_gmm", *out)
    assert done.code == 0
    assert "4 files below" in notes(done.err)[0]


def test_check_counts_one_as_one(cli, stream, data):
    stream.write_text(FOLDER.replace("[features]", 'categories = ["bolt"]\n[features]'))
    outcome = cli("check", "-b", stream, "--data", data)
    assert "1 category, 4 training and 2 test images" in outcome.err
