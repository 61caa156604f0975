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


SCENARIOS = ("new", "fresh", "volume", "single")


@pytest.fixture(scope="module")
def failing(library, tmp_path_factory):
    """Return what is found with failing calls, by scenario, all in one process."""
    place = tmp_path_factory.mktemp("failing")
    (place / "two.toml").write_text(STREAM)

    def call(scenarios, ways):
        command = [
            *(sys.executable, HERE / "harness.py", library, place / "two.toml"),
            *(place / "cache", place / "place" / "work", ",".join(scenarios), ways),
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

    ways = os.environ.get("AVALANCHE_AD_FAULTS", "some")
    if ways == "some":
        return call((*SCENARIOS, "careless"), ways)
    return call(SCENARIOS, ways) | call(["careless"], "some")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_call_that_fails_costs_a_run(failing, scenario):
    found = failing[scenario]
    print(
        f"{scenario}: {found['failed']} runs, each with one of {found['calls']} failing"
    )
    assert found["wrong"] == []
    assert found["calls"] > 80
    assert found["failed"] >= found["calls"] // 9


def test_a_careless_move_is_noticed(failing):
    wrong = "\n".join(failing["careless"]["wrong"])
    for what in ("a run that is not whole", "notes.txt of a person is gone"):
        assert what in wrong
