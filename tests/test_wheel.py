"""The built wheel holds what it must and nothing else, and runs by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import avalanche_ad

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from the checkout, offline."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel alone into a folder."""
    target = tmp_path_factory.mktemp("site")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run(
        [sys.executable, *install, "--target", target, wheel],
        check=True,
        capture_output=True,
    )
    return target


@pytest.fixture
def call(installed, tmp_path):
    """Run Python on the installed package, outside the checkout."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


def test_the_top_level_holds_the_package_alone(names):
    assert {name.split("/")[0] for name in names} == {
        "avalanche_ad",
        f"avalanche_ad-{avalanche_ad.__version__}.dist-info",
    }


@pytest.mark.parametrize("kind", ["strategies", "benchmarks"])
def test_every_recipe_is_inside_and_nothing_else_of_its_folder(names, kind):
    inside = {
        name.removeprefix(f"avalanche_ad/recipes/{kind}/")
        for name in names
        if name.startswith(f"avalanche_ad/recipes/{kind}/")
    }
    folder = ROOT / "avalanche_ad/recipes" / kind
    assert inside == {path.name for path in folder.glob("*.toml")}
    assert inside


def test_code_types_and_data_are_inside(names):
    data = (
        "features/data/embedded.LICENSE.txt",
        "features/data/embedded.safetensors",
        "features/data/whitening.safetensors",
        "reporting/report.html.jinja",
    )
    for name in ("py.typed", "cli/list.py", *data):
        assert f"avalanche_ad/{name}" in names
    modules = {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("avalanche_ad/**/*.py")
    }
    assert modules == {name for name in names if name.endswith(".py")}


def test_the_source_distribution_builds_the_same_wheel(names, tmp_path):
    """It holds no links, as a checkout on a system that has none."""
    build = [sys.executable, "-m", "hatchling", "build"]
    subprocess.run(
        [*build, "-t", "sdist", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        assert all(member.isfile() or member.isdir() for member in archive)
        archive.extractall(tmp_path, filter="data")
    subprocess.run(
        [*build, "-t", "wheel", "-d", tmp_path],
        cwd=tmp_path / path.name.removesuffix(".tar.gz"),
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == names


def test_the_installed_package_runs_outside_the_checkout(call, installed, tiny_stream):
    script = (
        "import avalanche_ad.cli, sys; from pathlib import Path\n"
        "from avalanche_ad.recipes import list_recipes\n"
        "print(avalanche_ad.__file__)\n"
        "print(*list_recipes('strategies').values(), sep='\\n')"
    )
    found = call("-c", script)
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) > 5
    assert all(Path(line).is_relative_to(installed) for line in lines)
    assert not any(Path(line).is_relative_to(ROOT) for line in lines)

    listed = call("-m", "avalanche_ad.cli", "list", "benchmarks")
    assert listed.returncode == 0, listed.stderr
    assert "synthetic_5x3" in listed.stdout


def test_the_installed_package_trains(call, tiny_stream, tmp_path):
    run = call(
        *("-m", "avalanche_ad.cli", "run", "-b", tiny_stream, "-s", "feature_gmm"),
        *("--out", tmp_path / "run"),
    )
    assert run.returncode == 0, run.stderr
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["final"]["image_auroc"] is not None
    assert results["git"] is None  # not a checkout
