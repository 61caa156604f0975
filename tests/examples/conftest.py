"""The packages of examples/third_party, installed offline beside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def package(request, tmp_path_factory):
    """Install the example that the module names into a folder of its own."""
    source = tmp_path_factory.mktemp("source") / "package"
    shutil.copytree(ROOT / "examples" / "third_party" / request.module.EXAMPLE, source)
    target = tmp_path_factory.mktemp("site")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [sys.executable, *pip, *offline, "--target", target, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def cli(package, tmp_path, monkeypatch, cli):
    """Run the command line where the example's package is installed, or is not.

    It runs in this process, which takes the package from its folder as any other would
    that finds it there.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVALANCHE_AD_CACHE", str(tmp_path / "cache"))

    def run(*arguments, installed=True):
        with monkeypatch.context() as patch:
            if installed:
                patch.syspath_prepend(package)
            else:
                for path in package.glob("*.py"):
                    patch.delitem(sys.modules, path.stem, raising=False)
            return cli(*arguments)

    yield run
    for path in package.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def process(package, tmp_path, process):
    """Run the command line as a process that finds the package."""
    places = os.pathsep.join([str(package), str(ROOT)])
    return lambda *arguments: process(*arguments, PYTHONPATH=places)
