"""A score of another package, from installing it to a run."""

from __future__ import annotations

import json

EXAMPLE = "score"


def test_it_is_listed(cli):
    done = cli("list", "scores")
    assert done.code == 0, done.err
    assert "top_share" in done.out


def test_a_run_is_scored_by_it(cli, tiny_stream, tmp_path):
    enough = ("--set", "synthetic.test_normals=10", "--set", "image_size=64")
    run = ("run", "-b", tiny_stream, "-s", "feature_gmm", *enough)
    found = []
    for kind in ("likelihood", "top_share"):
        done = cli(*run, "--set", f"model.score_kind={kind}", "--out", kind)
        assert done.code == 0, done.err
        results = json.loads((tmp_path / kind / "results.json").read_text())
        found.append(results["final"])
    assert found[0]["pixel_auroc"] == found[1]["pixel_auroc"]
    assert found[0]["image_auroc"] != found[1]["image_auroc"]


def test_a_model_without_its_map_is_told(cli, tiny_stream):
    run = ("run", "-b", tiny_stream, "-s", "feature_gmm")
    done = cli(*run, "--set", "model.score_kind=top_shere", "--out", "run")
    assert done.code == 2
    assert "unknown score 'top_shere' (did you mean 'top_share'?)" in done.err
