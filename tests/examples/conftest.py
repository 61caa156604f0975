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
def cli(package, tmp_path):
    """Run the command line as a process that finds the example's package."""

    def run(*arguments, installed=True):
        places = [str(package)] if installed else []
        return subprocess.run(
            [sys.executable, "-m", "avalanche_ad.cli", *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([*places, str(ROOT)]),
                "AVALANCHE_AD_CACHE": str(tmp_path / "cache"),
            },
            capture_output=True,
            text=True,
        )

    return run
