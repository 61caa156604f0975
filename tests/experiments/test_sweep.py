"""A comparison runs what is missing, reads what is there, writes its tables."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import time
from threading import Thread

import pytest
from filelock import FileLock

from avalanche_ad.errors import RecipeError, ResultsError, TrainingError
from avalanche_ad.experiments import sweep
from avalanche_ad.experiments.configuration import (
    run_configuration,
    updated_configuration,
)
from avalanche_ad.experiments.parallel import Job, run_jobs
from avalanche_ad.experiments.results import WORKING_MARKER, read_results
from avalanche_ad.experiments.sweep import compare
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import load_experiment

pytestmark = pytest.mark.slow


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
    lines = []
    with pytest.raises(ResultsError, match="naive-seed0 holds a run of another"):
        compare([other], [7, 0], place / "out", announce=lines.append)
    assert lines == []  # before anything ran
    assert not list((place / "out").glob("naive-seed7*"))


@pytest.mark.parametrize("seeds", [[0, 1], [0, 1, 2]])
def test_runs_of_other_features_are_refused(results, recipes, place, tmp_path, seeds):
    out = tmp_path / "out"
    shutil.copytree(place / "out", out)
    for folder in out.iterdir() if len(seeds) > 2 else [out / "naive-seed1"]:
        if (folder / "results.json").is_file():
            content = json.loads((folder / "results.json").read_text())
            content["versions"]["features"] = "0123456789ab"
            (folder / "results.json").write_text(json.dumps(content))
    with pytest.raises(ResultsError, match="different features.*0123456789ab.*--out"):
        compare(recipes, seeds, out, cache=FeatureCache(place / "cache"))
    assert not (out / "naive-seed2").exists()


def with_other_data(folder, category="gear"):
    """Let a finished run say that it saw other images of a category."""
    content = read_results(folder)
    content["data"][category] = "0123456789abcdef"
    (folder / "results.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("seeds", "others", "told"),
    [
        ([0, 1], ["naive-seed1"], r"gear changed \(naive-seed0, .* \| naive-seed1\)"),
        (
            [0, 1],
            ["naive-seed0", "naive-seed1", "replay-seed0", "replay-seed1"],
            r"gear changed \(.* \| what is there now\)",
        ),
        (
            [0, 1, 2],
            ["naive-seed0", "naive-seed1", "replay-seed0", "replay-seed1"],
            r"gear changed \(.* \| those to be made\)",
        ),
    ],
)
def test_runs_of_other_images_are_refused(
    results, recipes, place, tmp_path, seeds, others, told
):
    out = tmp_path / "out"
    shutil.copytree(place / "out", out)
    for name in others:
        with_other_data(out / name)
    with pytest.raises(ResultsError, match=told):
        compare(recipes, seeds, out, cache=FeatureCache(place / "cache"))
    assert not (out / "naive-seed2").exists()


def test_runs_of_early_versions_are_read(results, recipes, place, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(place / "out", out)
    content = read_results(out / "naive-seed0")
    del content["data"]
    (out / "naive-seed0" / "results.json").write_text(json.dumps(content))
    assert len(compare(recipes, [0, 1], out)) == 4


def test_images_that_change_while_runs_are_made_are_noticed(
    results, recipes, place, tmp_path, monkeypatch
):
    def other_data(recipe, folder, **options):
        made = read_results(place / "out" / "naive-seed1")
        return made | {"data": {**made["data"], "bolt": "0123"}}

    shutil.copytree(place / "out/naive-seed0", tmp_path / "naive-seed0")
    monkeypatch.setattr(sweep, "run_experiment", other_data)
    with pytest.raises(
        ResultsError, match=r"bolt changed \(naive-seed0 \| naive-seed1"
    ):
        compare(recipes[:1], [0, 1], tmp_path)


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


def test_two_strategies_of_one_name_are_refused(recipes, tmp_path):
    with pytest.raises(RecipeError, match="two of the strategies are called 'naive'"):
        compare([recipes[0], recipes[0]], [0], tmp_path / "out")


def test_a_reference_that_is_not_compared_is_refused(recipes, tmp_path):
    with pytest.raises(RecipeError, match="--against 'ewc': .* naive, replay"):
        compare(recipes, [0], tmp_path / "out", against="ewc")
    assert not (tmp_path / "out").exists()


def test_differences_and_published_numbers_are_written(
    results, recipes, tiny_stream, place
):
    other = load_experiment("mvtec_5x3", "naive").benchmark
    compare(recipes, [0, 1], place / "out", against="replay", published=other)
    assert "## Against replay" in (place / "out/compare.md").read_text()
    beside = (place / "out/published.md").read_text()
    assert "another benchmark (MVTec AD" in beside
    assert "positive = forgot" in beside
    compare(recipes, [0, 1], place / "out")
    assert not (place / "out/published.md").exists()
    assert (place / "out/matrices-image_auroc.png").is_file()


def test_a_run_that_another_process_works_on_is_left_out(recipes, place, tmp_path):
    (tmp_path / "naive-seed0.partial").mkdir()
    (tmp_path / "naive-seed0.partial" / WORKING_MARKER).touch()
    lines = []
    with (
        FileLock(tmp_path / "naive-seed0.partial/run.lock"),
        pytest.raises(ResultsError, match=r"missing, .*: naive, seed 0\. Run the same"),
    ):
        compare(
            recipes,
            [0],
            tmp_path,
            cache=FeatureCache(place / "cache"),
            announce=lines.append,
        )
    assert lines == [
        "[1/2] naive, seed 0",
        "naive, seed 0: another process is working on this run",
        "[2/2] replay, seed 0",
    ]
    assert (tmp_path / "replay-seed0/results.json").is_file()
    assert "| replay | 1 |" in (tmp_path / "compare.md").read_text()


def fixed(result):
    """What must not change from run to run."""
    return {k: v for k, v in result.items() if k not in ("seconds", "peak_rss_mb")}


@pytest.fixture(scope="module")
def endless(tiny_stream, tmp_path_factory):
    path = tmp_path_factory.mktemp("strategies") / "endless.toml"
    path.write_text("title = 'x'\nsummary = 'x'\n[training]\nepochs = 1000000\n")
    return load_experiment(str(tiny_stream), str(path))


@pytest.fixture(scope="module")
def diverging(tiny_stream, tmp_path_factory):
    path = tmp_path_factory.mktemp("strategies") / "diverging.toml"
    path.write_text("title = 'x'\nsummary = 'x'\n[training]\nlr = 1e30\n")
    return load_experiment(str(tiny_stream), str(path))


def kill_when_working(name, partial):
    until = time.monotonic() + 100
    while not (partial / "metrics.csv").exists() and time.monotonic() < until:
        time.sleep(0.05)
    for process in multiprocessing.active_children():
        if process.name == name:
            os.kill(process.pid, signal.SIGKILL)


def test_runs_side_by_side_give_what_runs_in_turn_give_beside_one_that_fails(
    diverging, results, recipes, place, tmp_path
):
    lines = []
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match="^diverging, seed 0: the loss became"):
        compare(
            [diverging, *recipes],
            [0],
            out,
            cache=FeatureCache(place / "cache"),
            announce=lines.append,
            jobs=3,
            threads=1,
        )
    for name, in_turn in (("naive", results[0]), ("replay", results[2])):
        assert fixed(read_results(out / f"{name}-seed0")) == fixed(in_turn)
        assert f"| {name} | 1 |" in (out / "compare.md").read_text()
    ends = [line.split(" in ")[0] for line in lines if ": done in " in line]
    pairs = (("naive", "replay"), ("replay", "naive"))
    assert ends in [
        [f"[{i}/3] {name}, seed 0: done" for i, name in enumerate(pair, 1)]
        for pair in pairs
    ]
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_is_told(endless, place, tmp_path):
    job = Job(endless, 0, tmp_path / "endless-seed0")
    partial = tmp_path / "endless-seed0.partial"
    killer = Thread(target=kill_when_working, args=(str(job), partial))
    killer.start()
    told = []
    run_jobs(
        [job],
        2,
        data_root=None,
        device="cpu",
        threads=1,
        cache=FeatureCache(place / "cache"),
        done=lambda job, seconds: told.append("done"),
        failed=lambda job, error: told.append(f"{job}: {error}") or True,
        announce=told.append,
    )
    killer.join()
    (line,) = told
    assert line.startswith("endless, seed 0: its process died (signal SIGKILL)")


def test_an_interrupt_stops_what_runs_and_keeps_what_is_finished(
    endless, recipes, place, tmp_path
):
    class Stop(KeyboardInterrupt):
        """Ctrl-C."""

    def announce(line):
        if "done" in line:
            raise Stop

    with pytest.raises(Stop):
        compare(
            [endless, recipes[0]],
            [0],
            tmp_path,
            cache=FeatureCache(place / "cache"),
            announce=announce,
            jobs=2,
            threads=1,
        )
    assert multiprocessing.active_children() == []
    assert (tmp_path / "naive-seed0/results.json").is_file()
    assert "| naive | 1 |" in (tmp_path / "compare.md").read_text()
    # it was told to stop, and cleaned up behind itself
    assert not (tmp_path / "endless-seed0.partial").exists()


def test_runs_recorded_before_an_option_came_are_read(recipes):
    recorded = json.loads(json.dumps(run_configuration(recipes[0], None)))
    del recorded["benchmark"]["model"]["flow_start"]
    assert updated_configuration(recorded) == run_configuration(recipes[0], None)
    del recorded["benchmark"]["model"]["position_calibration"]  # it was off, then
    before = run_configuration(recipes[0], None)
    before["benchmark"]["model"]["position_calibration"] = False
    assert updated_configuration(recorded) == before
    recorded["benchmark"]["model"]["position_calibration"] = True
    recorded["benchmark"]["model"]["couplings"] += 1
    assert updated_configuration(recorded) != run_configuration(recipes[0], None)
    recorded["benchmark"]["model"]["unknown"] = 1
    assert updated_configuration(recorded) == recorded
