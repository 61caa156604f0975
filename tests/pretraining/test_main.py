import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from avalanche_ad.features import EmbeddedBackbone
from pretraining.__main__ import main

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def start(*arguments):
    """Run the command as a process."""
    return subprocess.run(
        [sys.executable, "-m", "pretraining", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process; return its exit code and what it told."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pretraining", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            typer.run(main)
        return ended.value.code, capsys.readouterr().err

    return run


SMALL = (
    *("--epochs", 2, "--batch-size", 16, "--channels", "8,16", "--size", 20),
    *("--first-size", 16, "--strides", "4,8", "--stack", "2,4"),
    *("--level-channels", 10, "--filters", "--threads", 1, "--precision", "float32"),
)


def test_photographs_become_a_backbone(archive, tmp_path, call):
    """The first time by a process of its own."""
    out = tmp_path / "out"
    done = start(archive, "--out", out, *SMALL, "--source", "stripes, CC0")
    assert done.returncode == 0, done.stderr
    assert "photographs held out are right" in " ".join(done.stderr.split())
    assert {path.name for path in out.iterdir()} == {
        "card.json",
        "checkpoint.pt",
        "curves.png",
        "embedded.safetensors",
        "metrics.csv",
    }
    backbone = EmbeddedBackbone(weights=out / "embedded.safetensors")
    levels = backbone(torch.rand(1, 3, 80, 80))
    assert [tuple(x.shape) for x in levels] == [(1, 20, 20, 10), (1, 10, 10, 10)]
    card = json.loads((out / "card.json").read_text())
    assert card["photographs"]["source"] == "stripes, CC0"
    assert str(tmp_path) not in json.dumps(card)
    assert backbone.card == {key: card[key] for key in card if key != "sha256"}
    with (out / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    before = (out / "embedded.safetensors").read_bytes()
    code, told = call(archive, "--out", out, *SMALL, "--source", "stripes, CC0")
    assert code == 0, told
    assert EmbeddedBackbone(weights=out / "embedded.safetensors").fingerprint() == (
        backbone.fingerprint()
    )
    assert len((out / "embedded.safetensors").read_bytes()) == len(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--channels", "8;16"], "--channels '8;16': expected whole numbers"),
        (["--channels", "8,12,16"], "--channels has 12"),
        (
            ["--strides", "3"],
            "--strides: strides must be rising numbers out of [2, 4, 8, 16]",
        ),
        (
            ["--stack", "3"],
            "--stack: strides must be rising numbers out of [2, 4, 8, 16]",
        ),
        (["--level-channels", "999"], "--level-channels 999 is more than the 192"),
        (["--blocks", "2"], "--blocks '2': expected a number for each of the 4"),
        (["--precision", "half"], "expected auto, bfloat16 or float32"),
        (["--batch-size", "5000"], "--batch-size 5000 is more than"),
    ],
)
def test_a_wrong_option_is_told_before_any_training(
    archive, tmp_path, call, options, message
):
    code, told = call(archive, "--out", tmp_path / "out", *options)
    assert code == 2
    assert message in " ".join(told.split())
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()
