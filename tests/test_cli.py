"""Every command on tiny data; the main ones as processes of their own."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import avalanche_ad
from avalanche_ad.cli import main
from avalanche_ad.cli.list import REGISTRIES
from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.results import WORKING_MARKER
from avalanche_ad.registry import Registry


def test_run_prints_a_table_per_task_and_saves_everything(
    process, trained_run, tiny_stream, tmp_path
):
    """As a process of its own, which gives the numbers of a run in this one."""
    folder = tmp_path / "naive"
    done = process("run", "-b", tiny_stream, "-s", "naive", "--out", folder)
    out, err = done.out, done.err
    assert [out.count(f"After task {task}") for task in (1, 2, 3)] == [1, 1, 0]
    for word in ("bolt", "gear", "image auroc", "mean", "Final values", "naive"):
        assert word in out
    assert "…" not in out  # no column was cut
    assert "Tiny · Naive · seed 0" in err
    assert f"saved in {folder}" in err
    assert "Warning" not in err
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "metrics.csv",
        "model.json",
        "model.safetensors",
        "learner",
    }
    ours, theirs = (
        json.loads((where / "results.json").read_text())["matrix"]
        for where in (folder, trained_run.folder)
    )
    assert ours == theirs


def test_a_second_run_needs_no_backbone(trained_run, cli, tiny_stream, tmp_path):
    learn = ("run", "-b", tiny_stream, "-s", "naive", "--cache", tmp_path / "cache")
    first = cli(*learn, "--out", tmp_path / "first")
    assert "(0 backbone calls)" not in first.err
    again = cli(*learn, "--out", tmp_path / "run")
    assert again.code == 0
    assert "(0 backbone calls)" in again.err
    # another folder, the same numbers
    ours, theirs = (
        json.loads((folder / "results.json").read_text())
        for folder in (tmp_path / "run", trained_run.folder)
    )
    assert ours["matrix"] == theirs["matrix"]


def test_run_takes_overrides_and_names_its_folder(
    cli, tiny_stream, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = cli(
        "run",
        "-b",
        tiny_stream,
        "-s",
        "replay",
        "--seed",
        3,
        "--set",
        "training.epochs=1",
    )
    assert done.code == 0, done.err
    results = json.loads(Path("runs/tiny/replay-seed3/results.json").read_text())
    assert results["seed"] == 3
    assert results["config"]["benchmark"]["training"]["epochs"] == 1


def test_compare_prints_and_writes_its_tables(cli, tiny_stream, tmp_path):
    command = ["compare", "-b", tiny_stream, "--out", tmp_path / "all"]
    done = cli(*command, "--strategies", "naive,feature_gmm", "--seeds", "0,1")
    assert done.code == 0, done.err
    assert "feature_gmm" in done.out
    assert "±" in done.out
    assert "published" not in done.out
    text = (tmp_path / "all/compare.md").read_text()
    assert "| naive | 2 |" in text
    assert (tmp_path / "all/compare.csv").is_file()
    again = cli(*command, "--strategies", "naive,feature_gmm,lwf", "--seeds", "0")
    assert again.err.count("already there") == 2
    assert "[3/3] lwf, seed 0\n" in again.err
    tested = cli(
        *(*command, "--strategies", "naive,feature_gmm", "--seeds", "0,1"),
        *("--against", "naive", "--published", "mvtec_5x3"),
    )
    assert tested.code == 0, tested.err
    assert "Against naive" in tested.out
    assert "positive = forgets more" in tested.out
    assert "Final values, side by side" in tested.out
    assert "another benchmark (MVTec AD" in tested.out
    assert "nan" not in tested.out
    assert "…" not in tested.out  # no column was cut
    assert {path.name for path in (tmp_path / "all").iterdir() if path.is_file()} == {
        "compare.md",
        "compare.csv",
        "compare-against.csv",
        "matrices.md",
        "matrices-image_auroc.png",
        "matrices-pixel_auroc.png",
        "published.md",
    }


def test_report_writes_one_page_of_a_run_or_of_many(cli, trained_run, tmp_path):
    page = tmp_path / "page.html"
    done = cli("report", trained_run.folder, "--out", page)
    assert done.code == 0, done.err
    assert done.err == f"1 run: {page}\n"
    one = page.read_text()
    assert "carpet_weave" in one

    for seed in (0, 1):
        copy = shutil.copytree(trained_run.folder, tmp_path / f"all/naive-seed{seed}")
        results = json.loads((copy / "results.json").read_text())
        (copy / "results.json").write_text(json.dumps({**results, "seed": seed}))
    # what a process that was killed as it moved a run leaves
    left = tmp_path / "all/naive-seed0.partial"
    shutil.copytree(tmp_path / "all/naive-seed0", left)
    (left / WORKING_MARKER).touch()
    (tmp_path / "all/notes.txt").write_text("not a run")
    done = cli("report", tmp_path / "all")
    assert done.code == 0, done.err
    assert "2 runs, seeds 0, 1" in (tmp_path / "all/report.html").read_text()
    done = cli("report", tmp_path / "all", "--out", tmp_path / "new/pages")
    assert done.code == 0, done.err
    pages = [path.name for path in (tmp_path / "new/pages").iterdir()]
    assert pages == ["report.html"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("strategies", ["naive", "replay", "feature_gmm"]),
        ("benchmarks", ["synthetic_5x3", "mvtec_5x3", "5 tasks of 3"]),
        ("datasets", ["synthetic", "mvtec_ad", "visa", "btad", "mvtec_3d", "folder"]),
        ("datasets", ["mvtec_loco", "mvtec_ad_2", "mpdd", "real_iad", "csv"]),
        ("backbones", ["embedded", "filterbank", "timm:<model>"]),
        ("plugins", ["GMMAlignmentPlugin", "re-align the mixtures of the flow-GMM"]),
        ("experiments", ["ladder", "how much of forgetting"]),
    ],
)
def test_list(cli, what, words):
    done = cli("list", what)
    assert (done.code, done.err) == (0, "")
    assert " from" not in done.out.splitlines()[0]
    for word in words:
        assert word in done.out
    if what == "strategies":
        assert cli("list").out == done.out


@pytest.mark.parametrize("what", REGISTRIES)
def test_list_names_the_package_that_brings_a_name(cli, what, tmp_path, monkeypatch):
    """A package that cannot even be imported breaks nothing."""
    about = tmp_path / "other_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: other-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        f"[avalanche_ad.{what}]\ntheirs = nowhere_at_all:Theirs\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = cli("list", what)
    assert (done.code, done.err) == (0, "")
    if isinstance(resolved(REGISTRIES[what]), Registry):
        assert done.out.splitlines()[0].split()[-1] == "from"
        (row,) = [line for line in done.out.splitlines() if "theirs" in line]
        assert row.split() == ["theirs", "other-package"]


def resolved(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_synthesize_check_and_run_on_a_folder(cli, tmp_path):
    folder = tmp_path / "set"
    done = cli("synthesize", folder, "--size", 80, "--categories", "bolt,gear")
    assert done.code == 0
    assert f"236 images in {folder}" in done.err
    assert len(list(folder.rglob("*.png"))) == 236 + 60  # and the masks
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        'title = "Own"\ndataset = "folder"\nclasses_per_experience = 1\n'
        "image_size = 80\nmask_size = 32\n"
    )
    done = cli("check", "-b", recipe, "--data", folder)
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [
        f"own: 2 categories, 128 training and 108 test images in {folder}",
        "0 errors, 0 notes",
    ]
    command = ["run", "-b", recipe, "-s", "feature_gmm", "--data", folder]
    done = cli(*command, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    kept = json.loads((tmp_path / "run/results.json").read_text())
    assert kept["config"]["data"] == str(folder)
    assert kept["categories"] == [["bolt"], ["gear"]]


def test_what_runs_by_default_learns(cli, tiny_stream, tmp_path):
    out = tmp_path / "run"
    done = cli("run", "-b", tiny_stream, "--out", out, "--set", "training.epochs=1")
    assert done.code == 0, done.err
    kept = json.loads((out / "results.json").read_text())
    assert kept["strategy"] == "context_flow"
    assert kept["final"]["image_auroc"] > 0.5


def test_a_folder_that_is_not_read_is_told(cli, tiny_stream, tmp_path):
    command = [
        "run",
        "-b",
        tiny_stream,
        "-s",
        "feature_gmm",
        "--data",
        tmp_path / "set",
    ]
    done = cli(*command, "--out", tmp_path / "run")
    assert done.code == 0
    assert "note: tiny draws its own images and does not read --data" in done.err
    kept = json.loads((tmp_path / "run/results.json").read_text())
    assert kept["config"]["data"] is None


def test_check_says_what_a_stream_draws(cli, tiny_stream):
    done = cli("check", "-b", tiny_stream)
    assert done.code == 0
    said = "tiny: 4 categories, 20 training and 28 test images drawn"
    assert done.err.splitlines()[0] == said


def test_check_lists_every_problem(cli, tmp_path):
    folder = tmp_path / "set"
    cli("synthesize", folder, "--size", 32, "--categories", "bolt,gear")
    for category in ("bolt", "gear"):
        mask = next((folder / category).glob("ground_truth/*/*.png"))
        mask.unlink()
        (folder / category / "train/good/000.png").write_bytes(b"")
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        'title = "Own"\ndataset = "folder"\nexperiences = [["gear"], ["bolt"]]\n'
    )
    done = cli("check", "-b", recipe, "--data", folder)
    assert done.code == 2
    assert done.err == "2 errors, 4 notes\n"
    lines = done.out.splitlines()
    kinds = ["error"] * 2 + ["note"] * 4
    for line, kind in zip(lines, kinds, strict=True):
        assert line.startswith(f"{kind}: {folder}/")
    assert sum("1 of 30 anomalous images of" in line for line in lines) == 2
    recipe.write_text(
        'title = "Own"\ndataset = "folder"\nexperiences = [["gear"], ["nut"]]\n'
    )
    assert "'nut'" in cli("check", "-b", recipe, "--data", folder).out


def test_cache_lists_and_clears(cli, tiny_stream, tmp_path):
    place = tmp_path / "cache"
    empty = cli("cache", "list", "--cache", place)
    assert (empty.code, empty.out) == (0, "")
    assert empty.err == f"0 entries, 0.0 MB in {place}\n"
    command = ["run", "-b", tiny_stream, "-s", "feature_gmm", "--cache", place]
    cli(*command, "--out", tmp_path / "run")
    listed = cli("cache", "--cache", place)
    head, *rows = listed.out.splitlines()
    assert head.split()[:2] == ["key", "backbone"]
    assert len(rows) == 4  # an entry a category
    assert all("embedded" in row and " 12 " in row for row in rows)
    key = rows[0].split()[0]
    assert "MB freed" in cli("cache", "clear", "--cache", place, "--key", key).err
    rest = cli("cache", "list", "--cache", place).out
    assert key not in rest
    assert len(rest.splitlines()) == 4
    assert cli("cache", "clear", "--cache", place).code == 0
    assert "0 entries" in cli("cache", "list", "--cache", place).err


def assert_trained_on(said):
    """Only that the flow has seen the normals that the thresholds are of."""
    (line,) = said.splitlines()
    assert line.startswith("warning: the thresholds of")
    assert "avalanche-ad calibrate" in line


def test_predict_writes_a_line_and_a_heat_map_an_image(cli, trained_run, tmp_path):
    for name in ("a.png", "b.jpg"):
        noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    done = cli("predict", trained_run.folder, tmp_path, "--out", tmp_path / "maps")
    assert done.code == 0
    assert_trained_on(done.err)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [Path(line["image"]).name for line in lines] == ["a.png", "b.jpg"]
    for line in lines:
        assert line["category"] in ("bolt", "brush", "carpet_weave", "gear")
        assert isinstance(line["anomalous"], bool)
        with Image.open(line["heat_map"]) as pair:
            assert pair.size == (140, 50)


def test_predict_goes_on_after_a_bad_image_and_exits_with_1(
    process, trained_run, tmp_path
):
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("a.png", "c.png"):
        Image.new("RGB", (80, 80), "grey").save(parts / name)
    strange = os.fsencode(parts) + b"/b\xff.png"  # a name that is no text
    Path(os.fsdecode(strange)).write_bytes((parts / "a.png").read_bytes()[:60])
    (parts / "._a.png").write_bytes(b"x")
    done = process("predict", trained_run.folder, parts, "--out", tmp_path / "maps")
    assert done.code == 1
    assert_trained_on(done.err)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert ["error" in line for line in lines] == [False, True, False]
    assert os.fsencode(lines[1]["image"]) == strange
    assert lines[0]["score"] == pytest.approx(lines[2]["score"], rel=1e-4)


def test_predict_whose_reader_leaves_ends_quietly(trained_run, tmp_path):
    for index in range(40):
        Image.new("RGB", (80, 80)).save(tmp_path / f"{index:02d}.png")
    command = [sys.executable, "-m", "avalanche_ad.cli", "predict", trained_run.folder]
    with subprocess.Popen(
        [*map(str, command), str(tmp_path), "--no-heat-maps"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert json.loads(running.stdout.readline())["image"].endswith("00.png")
        running.stdout.close()
        assert_trained_on(running.stderr.read())
    assert running.returncode == 141


def test_predict_without_heat_maps_writes_nothing(cli, trained_run, tmp_path):
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    before = sorted(trained_run.folder.rglob("*"))
    done = cli(
        "predict",
        trained_run.folder,
        tmp_path / "a.png",
        "--no-heat-maps",
        "--threshold",
        "f1max",
    )
    assert "heat_map" not in json.loads(done.out)
    assert sorted(trained_run.folder.rglob("*")) == before


def test_help_and_version(cli):
    for arguments in ((), ("--help",), ("run", "--help")):
        done = cli(*arguments)
        assert (done.code, done.err) == (0, "")
        assert "Usage: avalanche-ad" in done.out
    assert cli("--version").out == f"avalanche-ad {avalanche_ad.__version__}\n"


def test_the_console_script_is_there(tmp_path):
    script = Path(sys.executable).with_name("avalanche-ad")
    if not script.exists():
        pytest.fail(f"{script} is missing: pip install -e '.[test]'")
    done = subprocess.run(
        [script, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == f"avalanche-ad {avalanche_ad.__version__}\n"


def test_debug_shows_the_traceback(process):
    done = process("--debug", "run", "--benchmark", "nope")
    assert done.code != 0
    assert "Traceback" in done.err
    assert "RecipeError: unknown benchmark 'nope'" in done.err


@pytest.mark.parametrize("arguments", [["--debug", "run"], ["run", "--debug"]])
def test_debug_goes_before_a_command_or_after(arguments):
    """Python shows the traceback of what leaves the program."""
    with pytest.raises(RecipeError, match="unknown benchmark 'nope'"):
        main([*arguments, "--benchmark", "nope"])


def test_help_is_quick_because_nothing_heavy_is_imported():
    script = (
        "import sys, avalanche_ad.cli\n"
        "heavy = {'torch', 'avalanche', 'timm', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_category_with_one_class_of_test_images_is_warned_of_in_one_line(
    process, tiny_stream, tmp_path
):
    recipe = tmp_path / "own.toml"
    recipe.write_text(
        'title = "Own"\ndataset = "folder"\nclasses_per_experience = 2\n'
        "image_size = 80\nmask_size = 32\n"
    )
    for category in ("bolt", "gear"):
        for split, kind, count in (("train", "good", 4), ("test", "good", 2)):
            for number in range(count):
                path = tmp_path / f"set/{category}/{split}/{kind}/{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                rng = np.random.default_rng([number, len(split), len(category)])
                noise = rng.integers(0, 256, (80, 80, 3)).astype(np.uint8)
                Image.fromarray(noise).save(path)
    done = process(
        "run",
        *("-b", recipe, "-s", "feature_gmm"),
        *("--data", tmp_path / "set", "--out", tmp_path / "run"),
    )
    assert done.code == 0, done.err
    warned = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2
    assert all("no anomalous image" in line for line in warned)
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["final"]["image_auroc"] is None
    assert "–" in done.out


def test_a_damaged_cache_is_rebuilt_with_a_line_each(cli, tiny_stream, tmp_path):
    place = tmp_path / "cache"
    command = ["run", "-b", tiny_stream, "-s", "naive", "--cache", place, "--out"]
    assert cli(*command, tmp_path / "a").code == 0
    damaged = next(place.glob("*/features.npy"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    done = cli(*command, tmp_path / "b")
    assert done.code == 0
    warned = [line for line in done.err.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert str(damaged.parent) in warned[0]
    assert "computing them again" in warned[0]
    matrices = [
        json.loads((tmp_path / name / "results.json").read_text())["matrix"]
        for name in ("a", "b")
    ]
    assert matrices[0] == matrices[1]


def test_an_interrupted_run_says_so_and_resumes(tiny_stream, cli, process, tmp_path):
    """Ctrl-C between tasks: one line, code 130, and the same command goes on."""
    out = tmp_path / "run"
    command = [
        "run",
        "-b",
        tiny_stream,
        "-s",
        "naive",
        "--out",
        out,
        "--set",
        "training.epochs=20",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "avalanche_ad.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # tests that a shell started in the background ignore the signal, and so would
        # what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    checkpoint = tmp_path / "run.partial" / "checkpoint"
    until = time.monotonic() + 200
    while not checkpoint.exists() and running.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    printed, said = running.communicate(timeout=100)
    assert running.returncode == 130, said
    assert printed.count("After task") <= 1  # told after it is safe
    assert said.splitlines()[-1].startswith("interrupted; the same command resumes")
    assert "Traceback" not in said
    again = cli(*command)
    assert again.code == 0
    assert "After task 1" not in again.out
    assert "After task 2" in again.out
    assert cli(*command[:6], tmp_path / "straight", *command[7:]).code == 0
    one, other = (
        json.loads((folder / "results.json").read_text())["matrix"]
        for folder in (out, tmp_path / "straight")
    )
    assert one == other
