"""HGAD with neighbours in view under strategies that train it."""

import json

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "strategy", ["naive", "joint", "replay", "ewc", "lwf", "generative_replay"]
)
def test_strategies_train_it(strategy, cli, tiny_stream, tmp_path):
    out = tmp_path / "run"
    done = cli(
        *("run", "-b", tiny_stream, "-s", strategy, "--out", out),
        *("--set", "model.kernel=3", "--set", "model.position_fraction=0.25"),
    )
    assert done.code == 0, done.err
    final = json.loads((out / "results.json").read_text())["final"]
    assert all(isinstance(value, float) for value in final.values())
