"""A backbone of another package, from installing it to a prediction."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

EXAMPLE = "backbone"

STREAM = """\
title = "Tiny"
dataset = "synthetic"
categories = ["bolt", "gear"]
classes_per_experience = 1
image_size = 64
mask_size = 32
[synthetic]
train_images = 4
test_normals = 2
test_anomalies = 2
[features]
backbone = "color_grid"
options = {{ stride = {stride} }}
[training]
batch_size = 2
"""


def run(cli, folder, stride):
    path = folder / "tiny.toml"
    path.write_text(STREAM.format(stride=stride))
    return cli("run", "-b", path, "-s", "feature_gmm", "--out", "run")


def test_it_is_listed(process):
    """By a process of its own, which finds what pip installed."""
    done = process("list", "backbones")
    assert done.code == 0, done.err
    assert "color_grid" in done.out


def test_a_run_and_a_prediction(cli, tmp_path):
    done = run(cli, tmp_path, "16")
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["config"]["benchmark"]["features"]["backbone"] == "color_grid"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "part.png")
    done = cli("predict", "run", "part.png")
    assert done.code == 0, done.err
    assert "part.png" in done.out


def test_wrong_options_are_told_in_one_line(cli, tmp_path):
    done = run(cli, tmp_path, '"wide"')
    assert done.code == 2
    said = "backbone 'color_grid': stride should be a valid integer, got 'wide'"
    assert said in done.err
