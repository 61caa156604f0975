"""Whatever file-system call fails, a run is complete, resumable or untouched.

Each call once, some minutes a scenario, or each in every way, half an hour:

    AVALANCHE_AD_FAULTS=each python -m pytest tests/experiments/test_faults.py
    AVALANCHE_AD_FAULTS=every python -m pytest tests/experiments/test_faults.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "faults"
STREAM = """\
title = "Two"
dataset = "synthetic"
categories = ["bolt", "brush"]
classes_per_experience = 1
image_size = 80
mask_size = 32
[synthetic]
train_images = 5
test_normals = 3
test_anomalies = 4
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None,
        reason="the library that makes calls fail needs Linux and a C compiler",
    ),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    source = HERE / "faults.c"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"]
    subprocess.run(command, check=True)
    return built


@pytest.fixture
def failing(library, tmp_path):
    """Run a scenario with failing calls; return what was found."""
    (tmp_path / "two.toml").write_text(STREAM)

    def call(scenario, ways):
        command = [
            *(sys.executable, HERE / "harness.py", library, tmp_path / "two.toml"),
            *(tmp_path / "cache", tmp_path / "place" / "work", scenario, ways),
        ]
        done = subprocess.run(
            command,
            env={**os.environ, "LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


@pytest.mark.parametrize("scenario", ["new", "fresh", "volume", "single"])
def test_no_call_that_fails_costs_a_run(failing, scenario):
    ways = os.environ.get("AVALANCHE_AD_FAULTS", "some")
    found = failing(scenario, ways)
    print(
        f"{scenario}: {found['failed']} runs, each with one of {found['calls']} failing"
    )
    assert found["wrong"] == []
    assert found["calls"] > 80
    assert found["failed"] >= found["calls"] // 9


def test_a_careless_move_is_noticed(failing):
    wrong = "\n".join(failing("careless", "some")["wrong"])
    for what in ("a run that is not whole", "notes.txt of a person is gone"):
        assert what in wrong
