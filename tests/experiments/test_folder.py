"""A run's folder: what is somebody else's stays, what is finished arrives."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from avalanche_ad.errors import ResultsError
from avalanche_ad.experiments.folder import run_folder
from avalanche_ad.experiments.results import WORKING_MARKER, read_runs

RESULTS = {
    "schema": 1,
    "benchmark": "b",
    "strategy": "s",
    "seed": 0,
    "categories": [["bolt"]],
    "config": {},
    "matrix": {},
}


def work(folder, number=0):
    """Write what a run writes, and publish it."""
    for name in ("metrics.csv", "model.json", "model.safetensors", "learner"):
        (folder.partial / name).write_text(f"{name} {number}")
    (folder.partial / "checkpoint").write_text("old")
    results = json.dumps({**RESULTS, "seed": number})
    (folder.partial / "results.json").write_text(results)
    folder.publish()


def make(out, number=0):
    with run_folder(out) as folder:
        folder.note_replaced()
        work(folder, number)


def names(folder):
    return {path.name for path in folder.iterdir()}


WHOLE = {"results.json", "metrics.csv", "model.json", "model.safetensors", "learner"}


def seed(out):
    return json.loads((out / "results.json").read_text())["seed"]


@pytest.mark.parametrize("name", ["run.partial", "run.partial/results.json"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_of_that_name_is_somebody_elses(tmp_path, name, fails):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    with pytest.raises(ResultsError, match="run.partial is where this run would work"):
        make(tmp_path / "run")
    assert (tmp_path / name).read_text() == "years of work"
    assert not (tmp_path / "run").exists()


def test_other_names_are_nothing_to_us(tmp_path):
    for name in ("run.old", "run.former", "runs.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("precious")
    for number in range(2):
        make(tmp_path / "run", number)
    assert seed(tmp_path / "run") == 1
    for name in ("run.old", "run.former", "runs.partial"):
        assert (tmp_path / name / "a.txt").read_text() == "precious"


def test_a_persons_file_in_the_working_folder_stays(tmp_path):
    def write_and_fail():
        with run_folder(tmp_path / "run") as folder:
            (folder.partial / "notes.txt").write_text("mine")
            (folder.partial / "metrics.csv").write_text("ours")
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    assert (tmp_path / "run.partial" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "run.partial" / "metrics.csv").exists()
    make(tmp_path / "run")
    assert names(tmp_path / "run") >= WHOLE


def test_a_command_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), run_folder(tmp_path / "a" / "run"):
        raise KeyError
    assert names(tmp_path / "a") == set()


def test_an_empty_folder_of_a_process_that_was_killed_is_used(tmp_path):
    (tmp_path / "run.partial").mkdir()
    make(tmp_path / "run")
    assert names(tmp_path) == {"run"}
    assert names(tmp_path / "run") == WHOLE


def test_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    for number in range(2):
        make(tmp_path / "link", number)
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk" / "run") == WHOLE
    assert names(tmp_path) == {"disk", "link"}


def test_a_link_to_nothing_is_made_something(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    make(tmp_path / "link")
    assert names(tmp_path / "disk" / "run") == WHOLE


def test_links_in_a_circle_are_told(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ResultsError, match="give another --out|cannot write there"):
        make(tmp_path / "a")


def test_a_mount_point_is_worked_in(tmp_path, monkeypatch):
    out = tmp_path / "volume"
    (out / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    for number in range(2):
        with run_folder(out) as folder:
            assert folder.partial.parent == out
            assert names(tmp_path) == {"volume"}
            folder.note_replaced()
            work(folder, number)
        assert seed(out) == number
        assert names(out) == {*WHOLE, "lost+found"}


def test_between_file_systems_files_are_copied(tmp_path, monkeypatch):
    """As where a folder of one file system is mounted over the place."""
    out, real = tmp_path / "run", Path.replace
    out.mkdir()

    def no_link(self, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", no_link)

    def replace(self, target):
        if self.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    for number in range(2):
        make(out, number)
        assert seed(out) == number
        assert names(out) == WHOLE
    assert names(tmp_path) == {"run"}


def test_where_open_files_cannot_be_moved_or_removed(tmp_path, monkeypatch):
    """As on Windows, where the lock is open."""
    unlink, rename = Path.unlink, Path.rename

    def held(path):
        return (path / "run.lock").exists() if path.is_dir() else False

    def no_unlink(self, missing_ok=False):
        if self.name == "run.lock" and self.exists():
            raise PermissionError(errno.EACCES, "being used by another process")
        return unlink(self, missing_ok)

    def no_rename(self, target):
        if held(self):
            raise PermissionError(errno.EACCES, "being used by another process")
        return rename(self, target)

    monkeypatch.setattr(Path, "unlink", no_unlink)
    monkeypatch.setattr(Path, "rename", no_rename)
    for number in range(2):
        make(tmp_path / "run", number)
        assert seed(tmp_path / "run") == number
        assert names(tmp_path / "run") == WHOLE


def test_a_run_that_could_not_be_moved_is_moved_the_next_time(
    tmp_path, monkeypatch, caplog
):
    out = tmp_path / "run"
    (out / "predictions").mkdir(parents=True)
    make(out.with_name("other"))
    for name in WHOLE:
        (out.with_name("other") / name).rename(out / name)

    def no(self, target):
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no)
        patch.setattr(Path, "hardlink_to", no)
        with pytest.raises(ResultsError, match=r"busy.*complete in .*run.partial: the"):
            make(out, 1)
    assert seed(out) == 0
    assert seed(tmp_path / "run.partial") == 1
    # a command that then breaks as well moves it all the same
    with pytest.raises(KeyError), run_folder(out):
        raise KeyError
    assert seed(out) == 1
    assert names(out) == {*WHOLE, "predictions"}
    assert "a finished run had not reached its place; now it has" in caplog.text


def test_another_run_that_came_to_the_place_is_not_replaced(tmp_path):
    out = tmp_path / "run"

    def meanwhile():
        with run_folder(out) as folder:
            folder.note_replaced()
            out.mkdir()
            (out / "results.json").write_text(json.dumps({**RESULTS, "seed": 7}))
            work(folder, 1)

    with pytest.raises(ResultsError, match="another finished run has come there"):
        meanwhile()
    assert seed(out) == 7
    assert seed(tmp_path / "run.partial") == 1
    out.rename(tmp_path / "theirs")
    with pytest.raises(KeyError), run_folder(out):
        raise KeyError
    assert seed(out) == 1


def test_a_folder_of_a_files_name_is_somebody_elses(tmp_path):
    make(tmp_path / "run", 0)
    (tmp_path / "run" / "learner").unlink()
    (tmp_path / "run" / "learner").mkdir()
    (tmp_path / "run" / "learner" / "notes.txt").write_text("mine")
    with pytest.raises(ResultsError, match="cannot move the finished run there"):
        make(tmp_path / "run", 1)
    assert (tmp_path / "run" / "learner" / "notes.txt").read_text() == "mine"
    assert seed(tmp_path / "run.partial") == 1


def test_reports_know_a_working_folder_by_its_marker(tmp_path):
    for name in ("a", "b.partial", "c.old", "d.partial"):
        make(tmp_path / "made", "abcd".index(name[0]))
        (tmp_path / "made").rename(tmp_path / name)
    (tmp_path / "d.partial" / WORKING_MARKER).touch()
    assert [run["seed"] for run in read_runs(tmp_path)] == [0, 1, 2]
