"""A score of another package, from installing it to a run."""

from __future__ import annotations

import json

EXAMPLE = "score"
RUN = ("run", "-b", "synthetic_2x2", "-s", "feature_gmm")


def test_it_is_listed(cli):
    done = cli("list", "scores")
    assert done.returncode == 0, done.stderr
    assert "top_share" in done.stdout


def test_a_run_is_scored_by_it(cli, tmp_path):
    found = []
    for kind in ("likelihood", "top_share"):
        done = cli(*RUN, "--set", f"model.score_kind={kind}", "--out", kind)
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / kind / "results.json").read_text())
        found.append(results["final"])
    assert found[0]["pixel_auroc"] == found[1]["pixel_auroc"]
    assert found[0]["image_auroc"] != found[1]["image_auroc"]


def test_a_model_without_its_map_is_told(cli):
    done = cli(*RUN, "--set", "model.score_kind=top_shere", "--out", "run")
    assert done.returncode == 2
    assert "unknown score 'top_shere' (did you mean 'top_share'?)" in done.stderr
