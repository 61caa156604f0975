"""Whole commands on data of which some have no masks, and some no test images."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

STREAM = """\
title = "Own"
dataset = "folder"
classes_per_experience = 1
image_size = 80
mask_size = 32
forward_transfer = true
[features]
backbone = "filterbank"
[model]
couplings = 1
condition_channels = 4
centers_per_category = 2
[training]
epochs = 1
batch_size = 4
"""
pytestmark = pytest.mark.slow

PIXELS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(STREAM)
    return path


@pytest.fixture
def data(tmp_path):
    """Two categories, bolt with masks and gear without."""
    root, generator = tmp_path / "set", np.random.default_rng(0)
    mask = np.zeros((80, 80), np.uint8)
    mask[20:40, 20:40] = 255
    normals = [f"{split}/good/{n}" for split in ("train", "test") for n in range(4)]
    for category in ("bolt", "gear"):
        for name in [*normals, "test/hole/0", "test/hole/1"]:
            path = root / category / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (80, 80, 3), np.uint8)
            Image.fromarray(pixels).save(path)
    for number in range(2):
        path = root / f"bolt/ground_truth/hole/{number}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    return root


@pytest.fixture
def command(cli, stream, data, tmp_path):
    def call(name, *arguments):
        found = cli(name, "-b", stream, "--data", data, *arguments)
        assert found.code == 0, found.err
        return found

    return call


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def predicted(cli, run, data, *arguments):
    found = cli("predict", run, data / "gear/train/good/0.png", *arguments)
    assert found.code == 0, found.err
    return found


def test_one_category_without_masks(cli, command, data, tmp_path):
    folder = tmp_path / "runs"
    told = command(
        *("compare", "--strategies", "feature_gmm,naive", "--seeds", "0,1"),
        *("--against", "feature_gmm", "--out", folder),
    )
    note = "no anomalous image of 'gear' has a mask: pixel metrics are null"
    assert told.err.count(note) == 1
    coverage = "Means of pixel metrics are over 1 of 2 categories, without gear."
    assert coverage in told.out
    for page in ("compare.md", "matrices.md"):
        assert (folder / page).read_text().count(coverage) == 1
    run = folder / "feature_gmm-seed0"
    found = results_of(run)
    for name in PIXELS:
        for metric in (name, f"{name}_oracle"):
            values = found["per_category"][metric]
            assert values["gear"] is None
            assert found["final"][metric] == values["bolt"] is not None
            assert found["matrix"][metric][1][1] is None
    assert None not in found["per_category"]["image_auroc"].values()
    thresholds = json.loads((run / "model.json").read_text())["thresholds"]["f1max"]
    assert None not in thresholds.values()

    assert cli("report", folder).code == 0
    assert coverage in (folder / "report.html").read_text()
    out = tmp_path / "maps"
    told = predicted(cli, run, data, "--threshold", "f1max", "--out", out)
    assert list(out.rglob("*.png"))
    assert "warning" not in told.err


def test_no_mask_at_all(cli, command, data, tmp_path):
    shutil.rmtree(data / "bolt/ground_truth")
    run = tmp_path / "run"
    told = command("run", "-s", "feature_gmm", "--out", run)
    assert "no anomalous image of 'bolt', 'gear' has a mask" in told.err
    assert "No category has pixel metrics." in told.out
    assert "warning" not in told.err
    found = results_of(run)
    for part in ("final", "step_mean", "forgetting", "plasticity"):
        assert found[part]["image_auroc"] is not None
        for name in PIXELS:
            assert found[part][name] is None
    assert cli("report", run).code == 0
    assert "0 errors, 2 notes" in command("check").err


def test_a_category_without_test_images(cli, command, data, tmp_path):
    shutil.rmtree(data / "bolt/test")
    run = tmp_path / "run"
    told = command("run", "-s", "feature_gmm", "--out", run)
    line = "no test image of 'bolt': training and predict only, metrics are null"
    assert told.err.count(line) == 1
    assert (
        "Means of image metrics are over 1 of 2 categories, without bolt." in told.out
    )
    found = results_of(run)
    assert [row[0] for row in found["matrix"]["image_auroc"]] == [None, None]
    assert found["final"]["image_auroc"] == found["plasticity"]["image_auroc"]
    assert found["step_mean"]["image_auroc"] == found["final"]["image_auroc"]
    assert found["forgetting"]["image_auroc"] is None
    assert cli("report", run).code == 0


def test_no_test_image_at_all(cli, command, data, tmp_path):
    for category in ("bolt", "gear"):
        shutil.rmtree(data / category / "test")
        shutil.rmtree(data / category / "ground_truth", ignore_errors=True)
    folder = tmp_path / "runs"
    told = command(
        *("compare", "--strategies", "feature_gmm,naive", "--seeds", "0,1"),
        *("--against", "feature_gmm", "--out", folder),
    )
    line = "no test image of 'bolt', 'gear': training and predict only"
    assert told.err.count(line) == 1
    assert "No category has image and pixel metrics." in told.out
    run = folder / "feature_gmm-seed0"
    assert set(results_of(run)["final"].values()) == {None}
    assert cli("report", folder).code == 0
    assert "gear" in predicted(cli, run, data, "--out", tmp_path / "maps").out
    assert "0 errors, 2 notes" in command("check").err
