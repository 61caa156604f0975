"""Models of another package, from installing them to a prediction."""

from __future__ import annotations

import json

import pytest

EXAMPLE = "model"

STREAM = """\
title = "Tiny"
dataset = "synthetic"
categories = ["bolt", "gear"]
classes_per_experience = 1
image_size = 64
mask_size = 32
[synthetic]
train_images = 6
test_normals = 3
test_anomalies = 3
[model]
type = "{name}"
{options}
[training]
epochs = 2
batch_size = 3
lr = 1e-2
"""


def stream(folder, name, options=""):
    path = folder / "tiny.toml"
    path.write_text(STREAM.format(name=name, options=options))
    return path


def test_they_are_listed(cli):
    done = cli("list", "models")
    assert done.code == 0, done.err
    assert "memory_bank" in done.out
    assert "example-models" in done.out


@pytest.mark.parametrize(
    ("name", "strategy", "kept"),
    [
        ("memory_bank", "naive", "exemplars"),
        ("memory_bank.MemoryBank", "naive", "exemplars"),
        ("autoencoder", "replay", "parameters"),
    ],
)
def test_a_run_and_a_prediction(cli, tmp_path, name, strategy, kept):
    path = stream(tmp_path, name)
    done = cli("run", "-b", path, "-s", strategy, "--out", "run")
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["config"]["benchmark"]["model"]["type"] == name
    assert results["final"]["category_accuracy"] > 0.5
    assert results["memory_mb"][kept] > 0
    assert cli("synthesize", "set", "--categories", "gear").code == 0
    image = "set/gear/test/good/000.png"
    predicted = cli("predict", "run", image)
    assert predicted.code == 0, predicted.err
    gone = cli("predict", "run", image, installed=False)
    assert gone.code == 2
    assert "PYTHONPATH" in gone.err.strip().splitlines()[-1]


def test_a_stream_goes_on(cli, tmp_path):
    path = stream(tmp_path, "memory_bank")
    first = ("--set", 'categories=["bolt"]', "--out", "first")
    assert cli("run", "-b", path, "-s", "naive", *first).code == 0
    more = ("--from", "first", "--out", "second")
    done = cli("run", "-b", path, "-s", "naive", *more)
    assert done.code == 0, done.err
    cli("run", "-b", path, "-s", "naive", "--out", "whole")
    finals = [
        json.loads((tmp_path / name / "results.json").read_text())["final"]
        for name in ("second", "whole")
    ]
    assert finals[0]["image_auroc"] == finals[1]["image_auroc"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("vectors = 'many'", "key 'model.vectors'"),
        ("depth = 3", "unknown key 'model.depth'; known: "),
        ("score_kind = 'likelihood'", "unknown score 'likelihood'"),
    ],
)
def test_wrong_options_are_told_in_one_line(cli, tmp_path, options, told):
    path = stream(tmp_path, "memory_bank", options)
    done = cli("run", "-b", path, "-s", "naive", "--out", "run")
    assert done.code == 2
    assert told in done.err.strip().splitlines()[-1]
