"""The README's quickstart and commands are run, not only written."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_quickstart_runs(tmp_path, monkeypatch):
    code = blocks("python")[0]
    # the same code on fewer images and epochs
    shorter = code.replace("train_epochs=24", "train_epochs=1").replace(
        "SplitSyntheticAD(5, image_size=128,", "tiny(2,"
    )
    assert shorter.count("tiny(") == 1
    assert "train_epochs=1," in shorter
    prelude = """
        from avalanche_ad import anomaly_benchmark
        from avalanche_ad.datasets import SyntheticAD
        from avalanche_ad.features import FeatureCache
        def tiny(n_experiences, data_seed, backbone):
            data = SyntheticAD(96, train_images=4, test_normals=2, test_anomalies=4,
                               categories=["brush", "gear"], seed=data_seed)
            return anomaly_benchmark(data, n_experiences=n_experiences, image_size=96,
                                     backbone=backbone)
    """
    monkeypatch.setenv("AVALANCHE_AD_CACHE", str(tmp_path))
    script = textwrap.dedent(prelude) + shorter
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    values = [float(line) for line in done.stdout.split("\n") if line.startswith("0.")]
    assert len(values) + done.stdout.count("1.0\n") == 2, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return where the README's own model and its strategy lie."""
    made = tmp_path_factory.mktemp("own")
    (made / "my_models.py").write_text(blocks("python")[1], "utf-8")
    recipe = blocks("toml")[0]
    (made / "bank.toml").write_text(recipe, "utf-8")
    return made


@pytest.fixture
def own_model(folder, monkeypatch):
    """Work in that folder, as a user would."""
    monkeypatch.chdir(folder)


@pytest.mark.usefixtures("own_model")
def test_own_model_is_learned_and_predicts(cli, folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    few = ("train_images=4", "test_normals=2", "test_anomalies=2")
    run = next(command for command in commands() if "bank.toml --out" in command)
    words = [word for one in few for word in ("--set", f"synthetic.{one}")]
    for arguments in (
        [*run.split()[1:], *words],
        ["synthesize", "parts", "--categories", "gear"],
        ["predict", "runs/bank", "parts/gear/test/good/000.png"],
    ):
        done = cli(*arguments)
        assert done.code == 0, done.err
    assert json.loads(done.out)["category"] == "gear"


def commands():
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.partition("  #")[0].strip()
            if command.startswith("avalanche-ad "):
                yield command


@pytest.mark.parametrize("command", sorted(set(commands())))
@pytest.mark.usefixtures("own_model")
def test_every_command_names_what_exists(command):
    """Options, recipes and keys of every command shown are real."""
    from typer.main import get_command

    from avalanche_ad.cli import app
    from avalanche_ad.recipes import load_experiment

    words = command.split()[1:]
    group = get_command(app)
    sub = group.commands[words[0]]
    context = sub.make_context(words[0], words[1:])  # refuses unknown options
    given = context.params
    names = (given.get("strategies") or given.get("strategy") or "naive").split(",")
    if "benchmark" in given:
        for name in names:
            load_experiment(given["benchmark"], name, given.get("overrides") or [])


def test_install_commands_are_those_ci_runs():
    install = [block for block in blocks("bash") if ".venv/bin/pip install" in block]
    assert len(install) == 2
    run, test = install
    assert run.strip().endswith(".venv/bin/avalanche-ad run")
    assert test.strip() in (ROOT / ".ci" / "run").read_text("utf-8")
