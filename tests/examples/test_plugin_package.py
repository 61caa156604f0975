"""A plugin of another package, from installing it to a run."""

from __future__ import annotations

import json

EXAMPLE = "plugin"
RECIPE = """\
title = "Noise"
summary = "Trains on noisy features."
[[plugins]]
type = "{name}"
scale = {scale}
"""


def test_it_is_listed(cli):
    done = cli("list", "plugins")
    assert done.code == 0, done.err
    assert "feature_noise" in done.out


def test_a_run_takes_it_by_its_name(cli, tiny_stream, tmp_path):
    found = []
    for name, scale in (("feature_noise", 0.5), ("feature_noise.FeatureNoise", 0.5)):
        recipe = tmp_path / "noise.toml"
        recipe.write_text(RECIPE.format(name=name, scale=scale))
        done = cli("run", "-b", tiny_stream, "-s", recipe, "--out", name)
        assert done.code == 0, done.err
        results = json.loads((tmp_path / name / "results.json").read_text())
        found.append(results["matrix"]["image_auroc"])
    assert found[0] == found[1]


def test_a_wrong_argument_is_told(cli, tiny_stream, tmp_path):
    recipe = tmp_path / "noise.toml"
    recipe.write_text(RECIPE.format(name="feature_noise", scale="'loud'"))
    done = cli("run", "-b", tiny_stream, "-s", recipe, "--out", "run")
    assert done.code == 2
    assert "scale should be a valid number" in done.err
