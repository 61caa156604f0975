"""A run gives the same results twice, and the same after an interruption."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest
import torch
from avalanche.core import SupervisedPlugin
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from avalanche_ad.datasets import category_digests
from avalanche_ad.errors import (
    AvalancheADError,
    DatasetError,
    ResultsError,
    TrainingError,
)
from avalanche_ad.evaluation.registry import metric_names
from avalanche_ad.experiments import learning, recording, runner
from avalanche_ad.experiments.build import open_data
from avalanche_ad.experiments.results import WORKING_MARKER
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache, make_backbone
from avalanche_ad.recipes import load_experiment

pytestmark = pytest.mark.slow

VARYING = ("seconds", "peak_rss_mb", "git")


def fixed(results):
    """What must not change from run to run."""
    return {key: value for key, value in results.items() if key not in VARYING}


def contents(folder):
    """Bytes of every file, by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def read(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runner")


@pytest.fixture(scope="module")
def run(place, tiny_stream):
    """Run a strategy of the tiny stream into a folder; return results and calls."""
    cache = FeatureCache(place / "cache")

    def call(out, strategy="naive", overrides=(), **options):
        calls = []
        results = run_experiment(
            load_experiment(str(tiny_stream), strategy, overrides),
            out,
            cache=options.pop("cache", cache),
            after_features=calls.append,
            **options,
        )
        return results, calls[0] if calls else 0

    call.recipe = (str(tiny_stream), "naive")
    return call


@pytest.fixture(scope="module")
def reference(place, run):
    """Uninterrupted runs by strategy, made once."""
    made = {}

    def get(strategy):
        if strategy not in made:
            made[strategy] = place / f"reference-{strategy}"
            run(made[strategy], strategy)
        return made[strategy]

    return get


class Stop(KeyboardInterrupt):
    """An interruption by the user."""


def interrupt_after(task):
    def after_task(done, rows):
        if done == task:
            raise Stop

    return after_task


def interrupted(run, out, strategy="naive", task=0):
    with pytest.raises(Stop):
        run(out, strategy, after_task=interrupt_after(task))
    return out.with_name(out.name + ".partial")


def assert_same_run(one: Path, other: Path) -> None:
    assert fixed(read(one)) == fixed(read(other))
    for name in ("metrics.csv", "model.safetensors", "model.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_the_same_seed_gives_the_same_bytes_without_the_backbone(run, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    first, calls = run(tmp_path / "a", cache=cache)
    again, none = run(tmp_path / "b", cache=cache)
    assert calls > 0
    assert none == 0
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert first == read(tmp_path / "a")
    assert again == read(tmp_path / "b")


def test_another_seed_gives_another_run(run, reference, tmp_path):
    run(tmp_path / "a", seed=1)
    one, other = read(reference("naive")), read(tmp_path / "a")
    assert one["matrix"] != other["matrix"]
    assert (one["seed"], other["seed"]) == (0, 1)


def test_results_follow_the_schema(reference, tiny_stream):
    results = read(reference("naive"))
    assert set(results) == {
        "schema",
        "benchmark",
        "strategy",
        "seed",
        "categories",
        "versions",
        "config",
        "data",
        "git",
        "matrix",
        "per_category",
        "final",
        "step_mean",
        "forgetting",
        "forgetting_max",
        "bwt",
        "fwt",
        "plasticity",
        "seconds",
        "peak_rss_mb",
        "memory_mb",
    }
    assert results["schema"] == 1
    assert results["benchmark"] == "tiny"
    assert results["strategy"] == "naive"
    categories = [["bolt", "brush"], ["carpet_weave", "gear"]]
    assert results["categories"] == categories
    names = set(metric_names())
    assert {"image_auroc", "aupro_oracle", "category_accuracy"} <= names
    for section in ("matrix", "per_category", "final", "step_mean", "forgetting"):
        assert set(results[section]) == names, section
    for metric, rows in results["matrix"].items():
        assert [len(row) for row in rows] == [2, 2]
        assert rows[0][1] is None
        seen = [rows[0][0], rows[1][0], rows[1][1]]
        assert all(isinstance(value, float) for value in seen), metric
    assert set(results["per_category"]["aupro"]) == {n for c in categories for n in c}
    assert set(results["seconds"]) == {"features", "train", "eval", "total"}
    assert results["seconds"]["total"] >= results["seconds"]["train"] > 0
    assert results["peak_rss_mb"] > 100
    assert set(results["memory_mb"]) == {"exemplars", "statistics", "parameters"}
    assert results["config"]["benchmark"]["synthetic"]["train_images"] == 5
    recipe = load_experiment(str(tiny_stream), "naive").benchmark
    assert results["data"] == category_digests(open_data(recipe, None))


def test_memory_counts_what_is_kept_of_old_data(run, reference, tmp_path):
    naive = read(reference("naive"))["memory_mb"]
    assert naive["exemplars"] == naive["statistics"] == 0 < naive["parameters"]
    results, _ = run(tmp_path / "a", "replay", ["plugins.0.mem_size=4"])
    cumulative, _ = run(tmp_path / "b", "cumulative")
    kept = results["memory_mb"]["exemplars"], cumulative["memory_mb"]["exemplars"]
    # four images of the memory against the ten of the first experience
    assert kept[0] == pytest.approx(kept[1] * 4 / 10, abs=2e-3)
    model, _ = run(tmp_path / "c", "feature_gmm")
    assert model["memory_mb"]["statistics"] > 0


@pytest.mark.parametrize("strategy", ["naive", "replay", "ewc", "lwf"])
def test_an_interrupted_run_resumes_to_the_same_results(
    run, reference, tmp_path, strategy
):
    out = tmp_path / "run"
    partial = interrupted(run, out, strategy)
    assert not out.exists()
    assert (partial / "checkpoint").is_file()
    tasks = []
    run(out, strategy, after_task=lambda task, rows: tasks.append(task))
    assert tasks == [1]
    assert_same_run(out, reference(strategy))
    assert not partial.exists()


@pytest.mark.parametrize("strategy", ["naive", "joint"])
def test_what_fails_after_the_last_task_costs_no_training(
    run, tmp_path, monkeypatch, strategy
):
    run(tmp_path / "whole", strategy)
    with monkeypatch.context() as patch:
        patch.setattr(recording, "memory_mb", raise_memory_error)
        with pytest.raises(MemoryError):
            run(tmp_path / "run", strategy)
    tasks, said = [], []
    run(
        tmp_path / "run",
        strategy,
        progress=Clicks(1),
        announce=said.append,
        after_task=lambda task, rows: tasks.append(task),
    )
    assert tasks == []
    assert "after its last task" in said[0]
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def raise_memory_error(*arguments):
    raise MemoryError


def test_an_interrupted_run_resumes_from_another_folder(
    run, reference, tmp_path, monkeypatch
):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    interrupted(run, Path("runs/run"))
    monkeypatch.chdir("runs")
    tasks = []
    run(Path("run"), after_task=lambda task, rows: tasks.append(task))
    assert tasks == [1]
    assert_same_run(tmp_path / "runs" / "run", reference("naive"))


def test_a_run_interrupted_in_its_first_task_starts_anew(run, reference, tmp_path):
    with pytest.raises(Stop):
        run(tmp_path / "run", progress=Clicks(1))
    assert list(tmp_path.iterdir()) == []
    run(tmp_path / "run")
    assert_same_run(tmp_path / "run", reference("naive"))


def test_a_killed_run_resumes_to_the_same_results(
    run, reference, tiny_stream, place, tmp_path
):
    script = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from avalanche_ad.recipes import load_experiment
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache

def kill(task, rows):
    if task == 0:
        os.kill(os.getpid(), signal.SIGKILL)

stream, out, cache = sys.argv[1:]
recipe = load_experiment(stream, "replay")
run_experiment(recipe, Path(out), cache=FeatureCache(cache), after_task=kill)
"""
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", script, tiny_stream, out, place / "cache"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    tasks = []
    run(out, "replay", after_task=lambda task, rows: tasks.append(task))
    assert tasks == [1]
    assert_same_run(out, reference("replay"))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"strategy": "naive"}, "strategy's name .replay. → .naive."),
        ({"strategy": "replay", "seed": 1}, "seed 0 → 1"),
        (
            {"strategy": "replay", "overrides": ["training.epochs=3"]},
            "training.epochs 2 → 3",
        ),
    ],
)
def test_an_interrupted_run_is_not_overwritten_by_another(
    run, reference, tmp_path, other, difference
):
    partial = interrupted(run, tmp_path / "run", "replay")
    before = contents(partial)
    with pytest.raises(ResultsError, match=f"{difference}.*--fresh"):
        run(tmp_path / "run", **other)
    assert contents(partial) == before
    run(tmp_path / "run", "replay")
    assert_same_run(tmp_path / "run", reference("replay"))


def test_an_interrupted_run_is_discarded_on_demand(run, reference, tmp_path):
    interrupted(run, tmp_path / "run", "replay")
    tasks = []
    run(tmp_path / "run", after_task=lambda task, _: tasks.append(task), fresh=True)
    assert tasks == [0, 1]
    assert_same_run(tmp_path / "run", reference("naive"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_interrupted_run_goes_on_with_other_versions(
    run, reference, tmp_path, monkeypatch, caplog
):
    interrupted(run, tmp_path / "run")
    newer = {**recording.package_versions(), "torch": "99.0"}
    monkeypatch.setattr(recording, "package_versions", lambda: newer)
    tasks = []
    run(tmp_path / "run", after_task=lambda task, rows: tasks.append(task))
    assert tasks == [1]
    assert "→ 99.0" in caplog.text
    found = read(tmp_path / "run")
    assert "99.0" in found["versions"]["begun_with"]
    assert found["matrix"] == read(reference("naive"))["matrix"]


def test_a_run_goes_on_where_it_was_begun(run, tmp_path, caplog):
    """On the CPU, where it can; a device of another machine makes no difference."""
    interrupted(run, tmp_path / "run")
    results, _ = run(tmp_path / "run", device=torch.device("meta"))
    assert "begun on cpu: it goes on on cpu" in caplog.text
    assert results["versions"]["device"] == "cpu"
    assert "begun_with" not in results["versions"]


def test_a_checkpoint_of_other_weights_is_not_used(run, tmp_path):
    """The same file name, but the features are others."""
    weights = tmp_path / "own.safetensors"
    own = files("avalanche_ad.features") / "data" / "embedded.safetensors"
    weights.write_bytes(own.read_bytes())
    overrides = [
        "features.backbone=embedded",
        f"features.options={{weights='{weights}'}}",
    ]
    with pytest.raises(Stop):
        run(tmp_path / "run", overrides=overrides, after_task=interrupt_after(0))
    with safe_open(weights, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(weights)
    save_file(tensors | {"mean_8": tensors["mean_8"] + 1}, weights, about)
    with pytest.raises(ResultsError, match="features of the backbone .* changed"):
        run(tmp_path / "run", overrides=overrides)
    results, _ = run(tmp_path / "run", overrides=overrides, fresh=True)
    found = results["versions"]["features"]
    assert make_backbone("embedded", weights=weights).fingerprint().startswith(found)
    assert not make_backbone("embedded").fingerprint().startswith(found)


class Clicks:
    """A progress bar that interrupts the run at a training step."""

    def __init__(self, step):
        self.left = step

    def start(self, what, total):
        pass

    def report(self, what, done, total):
        pass

    def advance(self, what):
        self.left -= 1
        if self.left == 0:
            raise Stop


EVERY_EPOCH = {"overrides": ["training.epochs=4"], "checkpoint_minutes": 0}
FEW_GAUSSIANS = ["plugins.0.components=4", "plugins.0.samples=400"]


@pytest.mark.parametrize(
    "strategy",
    [
        *("naive", "joint", "replay", "ewc", "lwf", "cumulative", "gem", "mir"),
        *("si", "mas", "rwalk", "packnet", "gmm_alignment", "from_scratch"),
    ],
)
def test_a_run_interrupted_inside_a_task_resumes_to_the_same_bits(
    run, tmp_path, strategy, caplog
):
    options = EVERY_EPOCH
    if strategy == "gmm_alignment":
        options = options | {"overrides": [*options["overrides"], *FEW_GAUSSIANS]}
    run(tmp_path / "whole", strategy, **options)
    steps = []

    class Counting(Clicks):
        def advance(self, what):
            steps.append(what)

    # in the second task's third epoch, where there are tasks
    at = 11 if strategy == "joint" else 20
    with pytest.raises(Stop):
        run(tmp_path / "run", strategy, progress=Clicks(at), **options)
    assert (tmp_path / "run.partial" / "checkpoint").is_file()
    said = []
    run(
        tmp_path / "run",
        strategy,
        progress=Counting(0),
        announce=said.append,
        **options,
    )
    assert "within" in said[0]
    assert not caplog.records
    assert 0 < len(steps) <= 15
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_memory_that_has_begun_to_draw_resumes_between_tasks(run, tmp_path, caplog):
    """A-GEM holds an iterator over its memory, which cannot be stored."""
    run(tmp_path / "whole", "agem")
    said = []
    with pytest.raises(Stop):
        run(tmp_path / "run", "agem", progress=Clicks(11), checkpoint_minutes=0)
    (record,) = caplog.records
    assert "inside a task (TypeError: cannot pickle 'generator'" in record.message
    assert "it resumes from an older one" in record.message
    run(tmp_path / "run", "agem", announce=said.append)
    assert "before task 2 of 2" in said[0]
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_inside_a_task_nothing_is_saved_before_it_is_time(run, tmp_path):
    late = {**EVERY_EPOCH, "checkpoint_minutes": 10}
    with pytest.raises(Stop):
        run(tmp_path / "run", progress=Clicks(8), **late)
    assert not (tmp_path / "run.partial").exists()


class Hoarder(SupervisedPlugin):
    """Keeps an iterator that was started, as many plugins do."""

    def __init__(self, at_once=False):
        super().__init__()
        self.kept = iter([1]) if not at_once else (number for number in range(3))
        if at_once:
            next(self.kept)

    def after_training_exp(self, strategy, **kwargs):
        self.kept = iter(strategy.dataloader)
        next(self.kept)


@pytest.mark.parametrize("at_once", [False, True])
def test_a_plugin_that_does_not_pickle_costs_a_warning(
    run, tmp_path, caplog, monkeypatch, at_once
):
    recipe = tmp_path / "hoarder.toml"
    recipe.write_text(
        'title = "H"\nsummary = "h"\n[[plugins]]\n'
        f'type = "hoarding.Hoarder"\nat_once = {str(at_once).lower()}\n'
    )
    module = ModuleType("hoarding")
    module.Hoarder = Hoarder
    monkeypatch.setitem(sys.modules, "hoarding", module)
    warned = []

    class Watching(Clicks):
        def advance(self, what):
            warned.append(len(caplog.records))

    run(tmp_path / "run", str(recipe), progress=Watching(0))
    assert (tmp_path / "run" / "results.json").is_file()
    (record,) = caplog.records
    assert "no checkpoint can be written (TypeError: cannot pickle" in record.message
    # what can be found out before training is
    assert warned[0] == at_once


def test_no_place_for_the_key_costs_a_warning(
    run, reference, tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    run(tmp_path / "run")
    (record,) = caplog.records
    assert "no checkpoint can be written (" in record.message
    assert not (tmp_path / "run" / "learner").exists()
    assert fixed(read(tmp_path / "run")) == fixed(read(reference("naive")))


class Bomb:
    """What an attacker would put into a pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_of_another_hand_is_not_opened(run, reference, tmp_path):
    partial = interrupted(run, tmp_path / "run")
    mark = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(mark))
    signature = (partial / "checkpoint").read_bytes()[:32]
    (partial / "checkpoint").write_bytes(signature + bomb)
    with pytest.raises(ResultsError, match="cannot be resumed: it is damaged, or was"):
        run(tmp_path / "run")
    assert not mark.exists()
    assert (partial / "checkpoint").read_bytes() == signature + bomb
    pickle.loads(bomb)
    assert mark.exists()  # the bomb would have gone off


def test_a_checkpoint_whose_features_are_gone_waits_for_them(run, reference, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    with pytest.raises(Stop):
        run(tmp_path / "run", "replay", cache=cache, after_task=interrupt_after(0))
    cache.clear()
    tasks = []
    run(
        tmp_path / "run",
        "replay",
        cache=cache,
        after_task=lambda task, rows: tasks.append(task),
    )
    assert tasks == [1]
    assert_same_run(tmp_path / "run", reference("replay"))


@pytest.mark.parametrize("left", [0, 10])
def test_metrics_that_were_cut_are_told(run, tmp_path, left):
    partial = interrupted(run, tmp_path / "run")
    content = (partial / "metrics.csv").read_bytes()
    (partial / "metrics.csv").write_bytes(content[:left])
    with pytest.raises(ResultsError, match="metrics.csv was changed since the check"):
        run(tmp_path / "run")
    (partial / "metrics.csv").write_bytes(content)
    run(tmp_path / "run")


def test_code_beside_a_recipe_is_part_of_the_run(run, tmp_path, monkeypatch):
    recipe = tmp_path / "recipe" / "own.toml"
    recipe.parent.mkdir()
    recipe.write_text(
        'title = "O"\nsummary = "o"\n[[plugins]]\ntype = "code_of_mine.Keeps"\n'
    )
    code = recipe.with_name("code_of_mine.py")
    code.write_text(
        "from avalanche.core import SupervisedPlugin\n"
        "class Keeps(SupervisedPlugin):\n    pass\n"
    )
    with pytest.raises(Stop):
        run(tmp_path / "run", str(recipe), after_task=interrupt_after(0))
    original = code.read_text()
    code.write_text(original + "# changed\n")
    with pytest.raises(ResultsError, match="the code of code_of_mine changed"):
        run(tmp_path / "run", str(recipe))
    code.write_text(original)
    results, _ = run(tmp_path / "run", str(recipe))
    assert list(results["code"]) == ["code_of_mine"]
    code.write_text(original + "# changed\n")
    with pytest.raises(ResultsError, match="other code of code_of_mine"):
        run(tmp_path / "run", str(recipe))
    again, _ = run(tmp_path / "run", str(recipe), fresh=True)
    assert again["code"] != results["code"]


def test_an_error_of_a_plugin_is_not_blamed_on_the_folder(run, tmp_path, monkeypatch):
    def missing(self, strategy, **kwargs):
        Path("/nowhere/at/all").read_text()

    monkeypatch.setattr(learning.CheckpointPlugin, "before_training_exp", missing)
    with pytest.raises(TrainingError, match="the run broke: .*nowhere/at/all"):
        run(tmp_path / "run")


def test_a_finished_run_is_read_where_nothing_may_be_written(
    run, reference, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    shutil.copytree(reference("naive"), out)

    def no(*arguments, **options):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", no)
    results, _ = run(out)
    assert results == read(reference("naive"))


def test_a_run_that_arrives_late_is_not_made_anew(run, reference, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(reference("naive"), out)
    late = tmp_path / "run.partial"
    shutil.copytree(reference("naive"), late)
    (late / WORKING_MARKER).touch()
    results = json.loads((late / "results.json").read_text())
    (late / "results.json").write_text(json.dumps({**results, "git": "late"}))
    (late / "replaces").write_text(
        hashlib.blake2b((out / "results.json").read_bytes(), digest_size=16).hexdigest()
    )
    found, calls = run(out, progress=Clicks(1), fresh=True)
    assert found["git"] == "late"
    assert read(out)["git"] == "late"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_wrong_command_leaves_the_checkpoint_of_another_run(run, tmp_path):
    partial = interrupted(run, tmp_path / "run")
    with pytest.raises(DatasetError, match="unknown category 'nut'"):
        run(tmp_path / "run", overrides=['class_order=["nut"]'])
    assert (partial / "checkpoint").is_file()


def test_a_run_that_fails_leaves_nothing(run, tmp_path):
    with pytest.raises(AvalancheADError):
        run(tmp_path / "run", overrides=['class_order=["nut"]'])
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_is_there(run, reference, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(reference("naive"), out)
    before, said = contents(out), []
    recipe = load_experiment(*run.recipe)
    results = run_experiment(recipe, out, announce=said.append)
    assert results == read(reference("naive"))
    assert said == [f"{out}: this run is already there; --fresh makes it anew"]
    assert contents(out) == before


def test_a_finished_run_is_made_anew_when_the_new_one_is_finished(
    run, reference, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(reference("naive"), out)
    (out / "predictions").mkdir()
    mine = [out / "notes.txt", out / "report.html", out / "predictions" / "a.png"]
    for path in mine:
        path.write_text(path.name)
    (out / "metrics.csv").write_text("to be replaced")
    with pytest.raises(Stop):
        run(out, after_task=interrupt_after(0), fresh=True)
    assert (out / "metrics.csv").read_text() == "to be replaced"
    tasks = []
    run(out, after_task=lambda task, rows: tasks.append(task), fresh=True)
    assert tasks == [1]
    assert_same_run(out, reference("naive"))
    assert [path.read_text() for path in mine] == [path.name for path in mine]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (
            {"overrides": ["synthetic.seed=5"]},
            r"of another recipe \(synthetic.seed 0 → 5\): remove it, or choose",
        ),
        ({"strategy": "ewc"}, "of another recipe"),
        ({"seed": 1}, "of seed 0, not 1: remove it, or choose another --out"),
    ],
)
def test_a_finished_run_of_another_recipe_is_refused_before_any_work(
    run, reference, tmp_path, other, reason
):
    out = tmp_path / "run"
    shutil.copytree(reference("naive"), out)
    unusable = object()
    with pytest.raises(ResultsError, match=reason):
        run(out, cache=unusable, **other)
    assert_same_run(out, reference("naive"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_finished_run_of_other_images_is_refused_before_any_work(
    run, reference, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(reference("naive"), out)
    content = read(out)
    content["data"]["gear"] = "0123"
    (out / "results.json").write_text(json.dumps(content))
    with pytest.raises(ResultsError, match=r"gear changed \(run \| the data as it is"):
        run(out, cache=object())
    assert read(out) == content


def test_a_finished_run_of_other_weights_is_refused_wherever_they_lie(run, tmp_path):
    weights = tmp_path / "own.safetensors"
    own = files("avalanche_ad.features") / "data" / "embedded.safetensors"
    weights.write_bytes(own.read_bytes())
    named = "features.options.weights={}"
    run(tmp_path / "run", overrides=[named.format(weights)])
    moved = weights.rename(tmp_path / "moved.safetensors")
    run(tmp_path / "run", overrides=[named.format(moved)])
    with safe_open(moved, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(moved)
    save_file(tensors | {"mean_8": tensors["mean_8"] + 1}, moved, about)
    with pytest.raises(ResultsError, match=r"different features .*: run; .*: now"):
        run(tmp_path / "run", overrides=[named.format(moved)])


def test_a_checkpoint_of_other_images_is_not_used(
    run, reference, tmp_path, monkeypatch
):
    partial = interrupted(run, tmp_path / "run")
    before = (partial / "checkpoint").read_bytes()

    def other_images(*arguments, **options):
        built = build_benchmark(*arguments, **options)
        built.digests["bolt"] = "0123"
        return built

    build_benchmark = runner.build_benchmark
    with monkeypatch.context() as patch:
        patch.setattr(runner, "build_benchmark", other_images)
        with pytest.raises(ResultsError, match=r"bolt changed \(run.partial \| "):
            run(tmp_path / "run")
    assert (partial / "checkpoint").read_bytes() == before
    run(tmp_path / "run")
    assert_same_run(tmp_path / "run", reference("naive"))


def test_a_refused_run_leaves_the_checkpoint_beside_the_finished_one(
    run, reference, tmp_path
):
    partial = interrupted(run, tmp_path / "run")
    shutil.copytree(reference("naive"), tmp_path / "run")
    with pytest.raises(ResultsError, match="another recipe"):
        run(tmp_path / "run", "ewc")
    assert (partial / "checkpoint").is_file()


@pytest.mark.parametrize("content", [None, "{}", "text", '{"schema": 1}'])
def test_a_folder_of_something_else_is_refused(run, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    if content is not None:
        (tmp_path / "run" / "results.json").write_text(content)
    with pytest.raises(ResultsError, match="not empty and holds no run"):
        run(tmp_path / "run")
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_the_working_folder_itself_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResultsError, match="give a new folder"):
        run(Path())


def test_a_run_that_another_process_works_on_is_refused(run, tmp_path):
    partial = tmp_path / "run.partial"
    partial.mkdir()
    (partial / WORKING_MARKER).touch()
    with (
        FileLock(partial / "run.lock"),
        pytest.raises(ResultsError, match="another process"),
    ):
        run(tmp_path / "run")
    assert partial.is_dir()
