"""A comparison runs what is missing, reads what is there, writes its tables."""

from __future__ import annotations

import csv
import statistics

import pytest

from avalanche_ad.errors import RecipeError, ResultsError
from avalanche_ad.experiments import sweep
from avalanche_ad.experiments.recipe import load_experiment
from avalanche_ad.experiments.sweep import compare
from avalanche_ad.features import FeatureCache


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def recipes(tiny_stream):
    return [load_experiment(str(tiny_stream), name) for name in ("naive", "replay")]


@pytest.fixture(scope="module")
def results(place, recipes):
    return compare(recipes, [0, 1], place / "out", cache=FeatureCache(place / "cache"))


def test_every_strategy_runs_with_every_seed(results, place):
    pairs = [(r["strategy"], r["seed"]) for r in results]
    assert pairs == [("naive", 0), ("naive", 1), ("replay", 0), ("replay", 1)]
    folders = {path.name for path in (place / "out").iterdir() if path.is_dir()}
    assert folders == {"naive-seed0", "naive-seed1", "replay-seed0", "replay-seed1"}


def test_the_tables_hold_means_and_deviations_over_seeds(results, place):
    values = [r["final"]["image_auroc"] for r in results[:2]]
    with (place / "out/compare.csv").open(newline="") as file:
        rows = {row["strategy"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"naive", "replay"}
    assert rows["naive"]["seeds"] == "2"
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    found = [float(rows["naive"][f"final.image_auroc.{x}"]) for x in ("mean", "std")]
    assert found == pytest.approx([mean, deviation])
    text = (place / "out/compare.md").read_text()
    assert f"| naive | 2 | {mean:.3f} ± {deviation:.3f} |" in text


def test_finished_runs_are_read_and_interrupted_ones_go_on(
    results, recipes, place, tmp_path, monkeypatch
):
    out = place / "out"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/results.json")}

    def refuse(*arguments, **options):
        raise AssertionError("a finished run was run again")

    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "run_experiment", refuse)
        again = compare(recipes, [0, 1], out, announce=lines.append)
    assert again == results
    assert before == {p: p.stat().st_mtime_ns for p in out.glob("*/results.json")}
    assert lines[0] == "[1/4] naive, seed 0: already there"

    run = []
    monkeypatch.setattr(
        sweep,
        "run_experiment",
        lambda recipe, folder, *, seed, **options: run.append(seed) or results[-1],
    )
    compare(recipes[:1], [0, 1, 2], out)
    assert run == [2]


def test_a_run_of_another_recipe_is_refused(results, tiny_stream, place):
    other = load_experiment(str(tiny_stream), "naive", ["training.epochs=3"])
    with pytest.raises(ResultsError, match="naive-seed0 holds a run of another"):
        compare([other], [0], place / "out")


def test_a_strategy_that_cannot_be_built_stops_before_anything_runs(
    recipes, tiny_stream, tmp_path
):
    path = tmp_path / "broken.toml"
    path.write_text("title = 'x'\nsummary = 'x'\nstrategy = 'os.system'\n")
    broken = load_experiment(str(tiny_stream), str(path))
    with pytest.raises(RecipeError, match="os.system"):
        compare([*recipes, broken], [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_that_cannot_be_written_are_told(results, recipes, place, monkeypatch):
    (place / "blocked").mkdir()
    (place / "blocked/naive-seed0").symlink_to(place / "out/naive-seed0")
    (place / "blocked/compare.md").mkdir()
    with pytest.raises(ResultsError, match="cannot write the comparison"):
        compare(recipes[:1], [0], place / "blocked")
