"""What tests of whole runs share: a tiny stream, its trained run, the command line."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

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


def run_command(*arguments: object, **environment: str) -> Outcome:
    """Run a command as a process of its own."""
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


@pytest.fixture(scope="session")
def process() -> Callable[..., Outcome]:
    """Run a command as a process of its own; tests that do are slow."""
    return run_command


@dataclass(frozen=True)
class TrainedRun:
    """A finished run and what its command printed."""

    folder: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def trained_run(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_stream: Path,
    cli: Callable[..., Outcome],
) -> TrainedRun:
    """The naive strategy on the tiny stream; not to be written to."""
    folder = tmp_path_factory.mktemp("runs") / "naive"
    outcome = cli("run", "-b", tiny_stream, "-s", "naive", "--out", folder)
    assert outcome.code == 0, outcome.err
    return TrainedRun(folder, outcome)


def encode_png16(pixels: np.ndarray, filters: Sequence[int] = (0,)) -> bytes:
    """Return a PNG of 16 bits a channel; rows take turns in their filter.

    :param pixels: (H, W, C), uint16, of 1 to 4 channels.
    """
    height, width, channels = pixels.shape
    step = 2 * channels
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    lines = b""
    for number, (row, up) in enumerate(zip(rows, above, strict=True)):
        left = np.concatenate([np.zeros(step, int), row])[: len(row)]
        corner = np.concatenate([np.zeros(step, int), up])[: len(row)]
        guess = left + up - corner
        nearest = np.abs(guess - np.stack([left, up, corner])).argmin(axis=0)
        paeth = np.choose(nearest, [left, up, corner])
        kind = filters[number % len(filters)]
        line = row - (0 * row, left, up, (left + up) // 2, paeth)[kind]
        lines += bytes([kind]) + (line % 256).astype(np.uint8).tobytes()

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
        )

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def encode_tiff16(
    pixels: np.ndarray,
    order: str = "<",
    planar: int = 1,
    deflate: bool = False,
    photometric: int = 2,
    extra: int | None = None,
    rows: int | None = None,
) -> bytes:
    """Return a TIFF of 16 bits a channel, with any tags.

    :param pixels: (H, W, C), uint16.
    :param order: ``"<"`` or ``">"``, the order of bytes.
    :param planar: 2 for channels one after the other.
    :param rows: rows in a strip, all by default.
    """
    height, width, channels = pixels.shape
    rows = rows or height
    planes = [pixels] if planar == 1 else list(pixels.transpose(2, 0, 1))
    strips = [
        plane[top : top + rows].astype(f"{order}u2").tobytes()
        for plane in planes
        for top in range(0, height, rows)
    ]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    starts = np.cumsum([8, *map(len, strips)]).tolist()
    body = b"".join(strips)
    body += b"\0" * (len(body) % 2)
    entries = []

    def add(tag: int, kind: str, *values: int) -> None:
        nonlocal body
        content = struct.pack(order + kind * len(values), *values)
        if len(content) > 4:
            at = 8 + len(body)
            body += content + b"\0" * (len(content) % 2)
            content = struct.pack(f"{order}I", at)
        head = struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(values))
        entries.append(head + content.ljust(4, b"\0"))

    add(256, "I", width)
    add(257, "I", height)
    add(258, "H", *[16] * channels)
    add(259, "H", 8 if deflate else 1)
    add(262, "H", photometric)
    add(273, "I", *starts[:-1])
    add(277, "H", channels)
    add(278, "I", rows)
    add(279, "I", *map(len, strips))
    add(284, "H", planar)
    if extra is not None:
        add(338, "H", extra)
    head = b"II" if order == "<" else b"MM"
    start = head + struct.pack(f"{order}HI", 42, 8 + len(body))
    count = struct.pack(f"{order}H", len(entries))
    return start + body + count + b"".join(entries) + b"\0" * 4


@pytest.fixture
def png16() -> Callable[..., bytes]:
    return encode_png16


@pytest.fixture
def tiff16() -> Callable[..., bytes]:
    return encode_tiff16
