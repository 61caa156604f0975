"""What tests of whole runs share: a tiny stream, its trained run, the command line."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

TINY = """\
title = "Tiny"
dataset = "synthetic"
categories = ["bolt", "brush", "carpet_weave", "gear"]
classes_per_experience = 2
image_size = 80
mask_size = 32
[synthetic]
train_images = 5
test_normals = 3
test_anomalies = 4
[model]
couplings = 1
condition_channels = 4
centers_per_category = 2
[training]
epochs = 2
batch_size = 4
lr = 3e-3
lambda2 = 10.0
"""


_ROWS = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-docs",
        action="store_true",
        help="write docs/wrong_inputs.md from what the tests are told (one process)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = {}


@pytest.fixture
def written_rows(pytestconfig: pytest.Config) -> dict[str, str] | None:
    """Rows for the page of messages, where it is to be written."""
    return pytestconfig.stash[_ROWS] if pytestconfig.getoption("write_docs") else None


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's feature cache and key out of the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    places = tmp_path_factory.mktemp("places")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALANCHE_AD_CACHE", str(places / "cache"))
        patch.setenv("XDG_STATE_HOME", str(places / "state"))
        patch.setenv("OMP_NUM_THREADS", "1")
        # a line is a line, however narrow the terminal of whoever runs the tests
        patch.delenv("FORCE_COLOR", raising=False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark recipe of four categories in two tasks that trains in a second."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def cli() -> Callable[..., Outcome]:
    """Run a command in this process."""

    def call(*arguments: object) -> Outcome:
        from avalanche_ad.cli import main

        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main([str(argument) for argument in arguments])
        code = ended.value.code
        assert isinstance(code, int)
        return Outcome(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def process() -> Callable[..., Outcome]:
    """Run a command as a process of its own."""

    def call(*arguments: object, **environment: str) -> Outcome:
        command = [sys.executable, "-m", "avalanche_ad.cli", *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, **environment},
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@dataclass(frozen=True)
class TrainedRun:
    """A finished run and what its command printed."""

    folder: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def trained_run(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_stream: Path,
    process: Callable[..., Outcome],
) -> TrainedRun:
    """The naive strategy on the tiny stream; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "naive"
    outcome = process("run", "-b", tiny_stream, "-s", "naive", "--out", folder)
    assert outcome.code == 0, outcome.err
    return TrainedRun(folder, outcome)
