"""A run killed at any moment and resumed ends as if nothing had happened."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import time

import pytest

from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import load_experiment

pytestmark = pytest.mark.slow

KILLS = 10
VARYING = ("seconds", "peak_rss_mb", "git")


@pytest.fixture(scope="module")
def processes():
    """Processes that start with everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avalanche_ad.experiments.runner"])
    return context


def test_ten_kills_at_random_moments(processes, tiny_stream, tmp_path):
    recipe = load_experiment(str(tiny_stream), "replay")
    out, reference = tmp_path / "run", tmp_path / "reference"

    def process(folder):
        made = processes.Process(
            target=run_experiment,
            args=(recipe, folder),
            kwargs={"cache": FeatureCache(tmp_path / "cache")},
        )
        made.start()
        return made

    for _ in range(2):  # the first also computes the features
        began = time.perf_counter()
        whole = process(reference)
        whole.join()
        assert whole.exitcode == 0
        lasts = time.perf_counter() - began

    draw, killed = random.Random(5), 0
    for _ in range(4 * KILLS):
        victim = process(out)
        victim.join(draw.uniform(0, lasts))
        victim.kill()
        victim.join()
        killed += victim.exitcode == -signal.SIGKILL
        if killed == KILLS:
            break
        if out.exists():  # it was through: once more from the start
            shutil.rmtree(out)
    assert killed == KILLS
    last = process(out)
    last.join()
    assert last.exitcode == 0

    expected, found = (
        json.loads((folder / "results.json").read_text()) for folder in (reference, out)
    )
    for key in expected.keys() - set(VARYING):
        assert found[key] == expected[key], key
    for name in ("metrics.csv", "model.safetensors", "model.json"):
        assert (out / name).read_bytes() == (reference / name).read_bytes(), name
