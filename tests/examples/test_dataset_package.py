"""A data set of another package, from installing it to a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

EXAMPLE = "dataset"

STREAM = """\
title = "Parts"
dataset = "ok_ng"
n_experiences = 2
image_size = 80
mask_size = 32
[features]
backbone = "filterbank"
[training]
batch_size = 2
"""


@pytest.fixture
def parts(tmp_path):
    """Two categories of noise, the defects bright squares."""
    draw = np.random.default_rng(0)
    for category in ("cap", "ring"):
        for kind, count in {"learn": 4, "ok": 2, "ng": 2}.items():
            folder = tmp_path / "parts" / category / kind
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 128, (80, 80, 3)).astype(np.uint8)
                if kind == "ng":
                    mask = np.zeros((80, 80), np.uint8)
                    mask[20:40, 30:60] = 255
                    pixels[mask > 0] = 250
                    (folder.parent / "ng_mask").mkdir(exist_ok=True)
                    Image.fromarray(mask).save(
                        folder.parent / "ng_mask" / f"{number}.png"
                    )
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "parts.toml").write_text(STREAM)
    return tmp_path / "parts"


def test_it_is_listed(cli):
    done = cli("list", "datasets")
    assert done.code == 0, done.err
    assert "ok_ng" in done.out


def test_it_is_checked(cli, parts):
    done = cli("check", "-b", "parts.toml", "--data", parts)
    assert done.code == 0, done.err
    assert "2 categories, 8 training and 8 test images" in done.err


def test_a_run_learns_it(cli, parts, tmp_path):
    run = ("run", "-b", "parts.toml", "-s", "feature_gmm", "--out", "run")
    done = cli(*run, "--data", parts)
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["config"]["benchmark"]["dataset"] == "ok_ng"
    assert sorted(results["data"]) == ["cap", "ring"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ending = 'jpg'", "no image of the data set 'ok_ng' found"),
        ("ending = 3", "ending should be a valid string, got 3"),
        ("endings = 'jpg'", "has no option 'endings' (did you mean 'ending'?)"),
    ],
)
def test_its_options_are_the_recipes(cli, parts, options, told):
    table = f"[dataset_options]\n{options}\n"
    (parts.parent / "parts.toml").write_text(STREAM + table)
    done = cli("run", "-b", "parts.toml", "-s", "feature_gmm", "--data", parts)
    assert done.code == 2
    assert told in done.err.strip().splitlines()[-1]
