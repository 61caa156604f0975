"""The summary against sums done by hand; files complete or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from avalanche_ad.errors import ResultsError
from avalanche_ad.experiments.results import (
    RUNS,
    SCHEMA,
    has_results,
    pack_runs,
    read_results,
    read_runs,
    summarise,
    write_json,
)

ROOT = Path(__file__).parents[2]
EXPERIENCES = (("a", "b"), ("c",), ("d",))


def rows(step, **values):
    """One evaluation after a task; the category's letter names its experience."""
    where = {name: i for i, names in enumerate(EXPERIENCES) for name in names}
    return [
        {
            "training_experience": step,
            "stream": "test",
            "experience": where[category],
            "category": category,
            "score": value,
        }
        for category, value in values.items()
    ]


HISTORY = [
    *rows(0, a=0.9, b=0.8),
    *rows(1, a=0.95, b=0.85, c=0.7),
    *rows(2, a=0.5, b=0.7, c=0.6, d=1.0),
]


def test_a_summary_equals_the_sums_done_by_hand():
    made = summarise(HISTORY, EXPERIENCES, ["score"])
    assert made["matrix"]["score"] == [
        [pytest.approx(0.85), None, None],
        [pytest.approx(0.9), 0.7, None],
        [pytest.approx(0.6), 0.6, 1.0],
    ]
    assert made["per_category"]["score"] == {"a": 0.5, "b": 0.7, "c": 0.6, "d": 1.0}
    # over categories, not over experiences, whose sizes differ
    assert made["final"]["score"] == pytest.approx((0.5 + 0.7 + 0.6 + 1.0) / 4)
    steps = [1.7 / 2, (0.95 + 0.85 + 0.7) / 3, 2.8 / 4]
    assert made["step_mean"]["score"] == pytest.approx(sum(steps) / 3)
    assert made["forgetting"]["score"] == pytest.approx((0.25 + 0.1) / 2)
    assert made["forgetting_max"]["score"] == pytest.approx((0.3 + 0.1) / 2)

    assert made["bwt"]["score"] == pytest.approx(-(0.25 + 0.1) / 2)
    assert made["plasticity"]["score"] == pytest.approx((0.85 + 0.7 + 1.0) / 3)
    assert made["fwt"]["score"] is None  # nothing was evaluated ahead


def test_experiences_without_test_images_are_left_out_of_means():
    made = summarise([*rows(1, c=0.7), *rows(2, c=0.6, d=1.0)], EXPERIENCES, ["score"])
    assert made["per_category"]["score"] == {"c": 0.6, "d": 1.0}
    assert made["final"]["score"] == pytest.approx(0.8)
    assert made["step_mean"]["score"] == pytest.approx((0.7 + 0.8) / 2)
    assert made["forgetting"]["score"] == pytest.approx(0.1)
    assert made["plasticity"]["score"] == pytest.approx((0.7 + 1.0) / 2)
    made = summarise(rows(2, d=1.0), EXPERIENCES, ["score"])
    assert made["step_mean"]["score"] == made["plasticity"]["score"] == 1.0
    made = summarise([], EXPERIENCES, ["score"])
    assert {made[key]["score"] for key in ("final", "step_mean", "forgetting")} == {
        None
    }


def test_what_is_evaluated_ahead_counts_for_forward_transfer_alone():
    ahead = [*rows(0, c=0.55), *rows(1, d=0.2)]
    baseline = {"score": [None, 0.5, 0.4]}
    made = summarise([*HISTORY, *ahead], EXPERIENCES, ["score"], baseline)
    # R[0][1] - b_1 and R[1][2] - b_2
    assert made["fwt"]["score"] == pytest.approx((0.05 - 0.2) / 2)
    matrix = made["matrix"]["score"]
    assert (matrix[0][1], matrix[1][2]) == (0.55, 0.2)
    matrix[0][1] = matrix[1][2] = made["fwt"]["score"] = None
    assert made == summarise(HISTORY, EXPERIENCES, ["score"])


def test_no_forward_transfer_without_a_baseline():
    ahead = [*HISTORY, *rows(0, c=0.55)]
    for baseline in (None, {}, {"score": [None] * 3}, {"other": [0.5] * 3}):
        made = summarise(ahead, EXPERIENCES, ["score"], baseline)
        assert made["fwt"]["score"] is None
    made = summarise(ahead, EXPERIENCES, ["score"], {"score": [None, 0.5, 0.4]})
    assert made["fwt"]["score"] == pytest.approx(0.05)  # of what was evaluated


def test_undefined_values_are_left_out_of_means():
    history = [
        *rows(0, a=0.9, b=None),
        *rows(1, a=0.8, b=None, c=None),
        *rows(2, a=0.7, b=None, c=None, d=0.5),
    ]
    made = summarise(history, EXPERIENCES, ["score"])
    assert made["matrix"]["score"] == [
        [0.9, None, None],
        [0.8, None, None],
        [0.7, None, 0.5],
    ]
    assert made["per_category"]["score"]["b"] is None
    assert made["final"]["score"] == pytest.approx(0.6)
    assert made["forgetting"]["score"] == pytest.approx(0.2)


def test_joint_training_has_one_row_and_no_forgetting():
    made = summarise(HISTORY[5:], EXPERIENCES, ["score"])
    assert made["matrix"]["score"][:2] == [[None] * 3] * 2
    assert made["final"]["score"] == pytest.approx(0.7)
    assert made["step_mean"]["score"] is None  # of steps there were none
    assert made["forgetting"]["score"] is None
    assert made["forgetting_max"]["score"] is None
    assert made["bwt"]["score"] is None
    assert made["plasticity"]["score"] is None


def test_one_experience_has_nothing_to_forget():
    made = summarise(rows(0, a=0.9), [("a",)], ["score"])
    assert made["final"]["score"] == 0.9
    assert made["forgetting"]["score"] is None


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), object()])
def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path, broken):
    path = tmp_path / "results.json"
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"a": 1, "b": broken})
    assert not path.exists()
    write_json(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"a": 2, "b": broken})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_crash_before_the_rename_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})

    def crash(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


WHOLE = {
    "schema": SCHEMA,
    "benchmark": "b",
    "strategy": "s",
    "seed": 0,
    "categories": [],
    "config": {},
    "matrix": {},
}


def test_results_are_read_back(tmp_path):
    write_json(tmp_path / "results.json", WHOLE)
    assert read_results(tmp_path) == WHOLE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no finished run"),
        ("", "cannot read the results"),
        ('{"schema": 1', "cannot read the results"),
        ("[]", "not the results of a run"),
        ('{"schema": 1}', "not the results of a run"),
        (json.dumps({**WHOLE, "schema": 99}), "expected schema 1, found 99"),
    ],
)
def test_results_that_are_none_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ResultsError, match=words) as caught:
        read_results(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_runs_of_other_images_are_no_table(tmp_path):
    def write(name, data):
        content = {
            "schema": 1,
            "benchmark": "own",
            "strategy": name,
            "seed": 0,
            "categories": [["bolt"], ["gear"]],
            "config": {},
            "matrix": {},
            **data,
        }
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", content)

    write("a", {"data": {"bolt": "1", "gear": "1"}})
    write("early", {})
    assert len(read_runs(tmp_path)) == 2
    write("b", {"data": {"bolt": "1", "gear": "2"}})
    told = r"masks: gear changed \(a \| b\), .*folders that hold runs of the same"
    with pytest.raises(ResultsError, match=told):
        read_runs(tmp_path)


def test_packed_runs_are_read_like_their_folders(tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    draw = 0.1
    for name in ("a", "b"):
        (runs / f"{name}-seed0").mkdir()
        made = {**WHOLE, "strategy": name, "matrix": {"score": [[draw / 3, None]]}}
        write_json(runs / f"{name}-seed0" / "results.json", made)
    folders = read_runs(runs)
    before = {p.parent: p.read_text() for p in runs.glob("*/results.json")}
    assert pack_runs(runs) == ["a-seed0", "b-seed0"]
    for folder in before:
        (folder / "results.json").unlink()
        folder.rmdir()
    assert read_runs(runs) == folders
    for folder, text in before.items():
        assert has_results(folder)
        assert json.dumps(read_results(folder), indent=1) + "\n" == text
        assert read_runs(folder) == [read_results(folder)]
    assert not has_results(runs / "c-seed0")
    assert not has_results(runs)
    with pytest.raises(ResultsError, match="holds no finished run: give"):
        read_runs(tmp_path)


def test_a_folder_goes_before_its_line_and_is_packed_with_the_others(tmp_path):
    line = {"run": "s-seed0", "results": {**WHOLE, "matrix": {"old": []}}}
    other = {"run": "t-seed0", "results": {**WHOLE, "strategy": "t"}}
    (tmp_path / RUNS).write_text(f"{json.dumps(line)}\n{json.dumps(other)}\n")
    (tmp_path / "s-seed0").mkdir()
    write_json(tmp_path / "s-seed0" / "results.json", WHOLE)
    assert read_results(tmp_path / "s-seed0") == WHOLE
    assert [run["matrix"] for run in read_runs(tmp_path)] == [{}, {}]
    assert pack_runs(tmp_path) == ["s-seed0", "t-seed0"]
    assert "old" not in (tmp_path / RUNS).read_text()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"RUNS.jsonl, line 2: expected a run as JSON"),
        ("[]", r"RUNS.jsonl, line 2: expected a run as JSON"),
        ('{"run": "x"}', r"RUNS.jsonl, line 2: expected a run as JSON"),
        ('{"run": "x", "results": {}}', r"line 2: not the results of a run; put"),
    ],
)
def test_a_damaged_line_is_told(tmp_path, line, words):
    good = json.dumps({"run": "s-seed0", "results": WHOLE})
    (tmp_path / RUNS).write_text(f"{good}\n{line}\n")
    with pytest.raises(ResultsError, match=words):
        read_runs(tmp_path)


def test_the_recorded_runs_are_whole():
    """Every line is a run in the form that its results.json had."""
    folders = sorted((ROOT / "results" / "runs").glob(f"*/{RUNS}"))
    names = []
    for folder in folders:
        for line in folder.read_text("utf-8").splitlines():
            run = json.loads(line)
            assert json.dumps(run, separators=(",", ":")) == line
            assert read_results(folder.parent / run["run"]) == run["results"]
            names.append(run["run"])
    assert len(names) >= 188
