"""A metric of another package: installed, named in a recipe, found in results."""

from __future__ import annotations

import csv
import json

EXAMPLE = "metric"
NAME = "caught_at_95"


def test_it_is_listed(cli):
    done = cli("list", "metrics")
    assert done.code == 0, done.err
    assert NAME in done.out


def test_its_values_are_in_results_and_tables(cli, tiny_stream, tmp_path):
    def call(*arguments):
        done = cli(*arguments)
        assert done.code == 0, done.err
        return done.out

    runs = tmp_path / "runs"
    folder = runs / "feature_gmm-seed0"
    chosen = ("-b", tiny_stream, "--set", f'extra_metrics=["{NAME}"]')
    shown = call("run", *chosen, "-s", "feature_gmm", "--out", folder)
    # a terminal may break the heading of a column, never lose all of it
    assert "caught" in shown
    results = json.loads((folder / "results.json").read_text("utf-8"))
    for section in ("final", "forgetting", "step_mean", "plasticity"):
        assert 0 <= abs(results[section][NAME]) <= 1
    assert 0 <= results["final"][f"{NAME}_oracle"] <= 1
    assert len(results["matrix"][NAME]) == len(results["categories"])
    assert results["config"]["benchmark"]["extra_metrics"] == [NAME]
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        written = {row["metric"] for row in csv.DictReader(file)}
    assert {NAME, f"{NAME}_oracle", f"{NAME}_forgetting"} <= written

    call("report", runs)
    assert NAME in (runs / "report.html").read_text("utf-8")
    call("compare", *chosen, "--strategies", "feature_gmm", "--out", runs)
    assert f"| {NAME} |" in (runs / "compare.md").read_text("utf-8")
    head = (runs / "compare.csv").read_text("utf-8").splitlines()[0]
    assert f"final.{NAME}.mean" in head
    told = f"feature_gmm: {NAME.replace('_', ' ')}"
    assert told in (runs / "matrices.md").read_text("utf-8")
