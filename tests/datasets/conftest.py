"""Tiny trees on disk, one writer per layout."""

from __future__ import annotations

import csv
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
