"""Tiny trees on disk, one writer per layout."""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = 16
Write = Callable[..., Path]


def write_image(path: Path, seed: int | None = None) -> Path:
    """Write a colour image whose content depends on its path or seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entropy = [seed] if seed is not None else list(str(path).encode())
    pixels = np.random.default_rng(entropy).integers(0, 256, (SIZE, SIZE, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def write_mask(path: Path, value: int = 255, size: int = SIZE) -> Path:
    """Write a mask with a square defect of the given value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size, size), dtype=np.uint8)
    pixels[2:6, 3:8] = value
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def image_file() -> Write:
    return write_image


@pytest.fixture
def mask_file() -> Write:
    return write_mask


@pytest.fixture
def folder_tree(tmp_path: Path) -> Callable[..., Path]:
    def build(categories: Sequence[str] = ("gear", "bolt")) -> Path:
        root = tmp_path / "set"
        for category in categories:
            base = root / category
            for name in ("train/good/000", "train/good/001", "test/good/000"):
                write_image(base / f"{name}.png")
            for defect in ("scratch", "hole"):
                write_image(base / "test" / defect / "000.png")
                write_mask(base / "ground_truth" / defect / "000_mask.png")
        return root

    return build


@pytest.fixture
def btad_tree(tmp_path: Path) -> Path:
    root = tmp_path / "btad"
    endings = {"01": ("bmp", "png"), "02": ("png", "png"), "03": ("bmp", "bmp")}
    for category, (image, mask) in endings.items():
        write_image(root / category / "train/ok" / f"0000.{image}")
        write_image(root / category / "test/ok" / f"0001.{image}")
        write_image(root / category / "test/ko" / f"0002.{image}")
        write_mask(root / category / "ground_truth/ko" / f"0002.{mask}")
    return root


@pytest.fixture
def mvtec_3d_tree(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    def build(categories: Sequence[str]) -> Path:
        root = tmp_path / "mvtec_3d"
        for category in categories:
            for folder in ("train/good", "validation/good", "test/good", "test/cut"):
                base = root / category / folder
                write_image(base / "rgb/000.png")
                (base / "xyz").mkdir()
                (base / "xyz/000.tiff").write_bytes(b"a point cloud, never read")
                write_mask(base / "gt/000.png", value=255 * folder.endswith("cut"))
        return root

    return build


@pytest.fixture
def visa_tree(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    def build(categories: Sequence[str]) -> Path:
        root = tmp_path / "visa"
        rows = []
        for category in categories:
            for number, split in enumerate(("test", "train", "train")):
                image = f"{category}/Data/Images/Normal/{number:04}.JPG"
                write_image(root / image)
                rows.append((category, split, "normal", image, ""))
            image = f"{category}/Data/Images/Anomaly/000.JPG"
            mask = f"{category}/Data/Masks/Anomaly/000.png"
            write_image(root / image)
            write_mask(root / mask, value=3)
            rows.append((category, "test", "anomaly", image, mask))
        (root / "split_csv").mkdir()
        with (root / "split_csv/1cls.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("object", "split", "label", "image", "mask"))
            writer.writerows(rows)
        return root

    return build


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
