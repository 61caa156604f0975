"""Tiny trees on disk, one writer per layout."""

from __future__ import annotations

import csv
import json
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
def mvtec_ad_2_tree(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    def build(categories: Sequence[str]) -> Path:
        root = tmp_path / "mvtec_ad_2"
        for category in categories:
            base = root / category
            for name in (
                "train/good/000_regular",
                "validation/good/001_regular",
                "test_public/good/000_regular",
                "test_public/good/000_overexposed",
                "test_public/bad/000_regular",
                "test_private/000_regular",
                "test_private_mixed/000_mixed",
            ):
                write_image(base / f"{name}.png")
            write_mask(base / "test_public/ground_truth/bad/000_regular_mask.png")
        return root

    return build


@pytest.fixture
def mvtec_loco_tree(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    def build(categories: Sequence[str]) -> Path:
        root = tmp_path / "mvtec_loco"
        for category in categories:
            base = root / category
            for name in (
                *("train/good/000", "validation/good/000", "test/good/000"),
                *("test/logical_anomalies/000", "test/structural_anomalies/000"),
            ):
                write_image(base / f"{name}.png")
            masks = base / "ground_truth"
            write_mask(masks / "logical_anomalies/000/000.png", value=255)
            pixels = np.zeros((SIZE, SIZE), dtype=np.uint8)
            pixels[4:12, 5:10] = 254
            Image.fromarray(pixels).save(masks / "logical_anomalies/000/001.png")
            write_mask(masks / "structural_anomalies/000/000.png", value=235)
            config = [
                ("missing_part", 255, 5, False),
                ("additional_part", 254, 0.5, True),
                ("scratch", 235, 1.0, True),
            ]
            keys = (
                *("defect_name", "pixel_value"),
                *("saturation_threshold", "relative_saturation"),
            )
            entries = [dict(zip(keys, entry, strict=True)) for entry in config]
            (base / "defects_config.json").write_text(json.dumps(entries))
        return root

    return build


@pytest.fixture
def kolektor_sdd_tree(tmp_path: Path) -> Path:
    root = tmp_path / "kolektor_sdd"
    for item in ("kos01", "kos02", "kos05", "kos10"):
        for part in range(3):
            write_image(root / item / f"Part{part}.jpg")
            write_mask(root / item / f"Part{part}_label.bmp", value=255 * (part == 1))
    return root


@pytest.fixture
def kolektor_sdd2_tree(tmp_path: Path) -> Path:
    root = tmp_path / "kolektor_sdd2"
    for name, value in (
        *(("train/10000", 0), ("train/10001", 255), ("train/10002", 0)),
        *(("test/20000", 0), ("test/20001", 255)),
    ):
        write_image(root / f"{name}.png")
        write_mask(root / f"{name}_GT.png", value=value)
    return root


@pytest.fixture
def real_iad_tree(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    def build(categories: Sequence[str]) -> Path:
        root = tmp_path / "real_iad"
        for category in categories:
            base = root / "realiad_256" / category
            entries = {}
            for name, kind in (
                *(("train", "OK"), ("train2", "OK"), ("test", "OK"), ("bad", "AK")),
            ):
                folder = "OK/S0001" if kind == "OK" else f"NG/{kind}/S0001"
                path = f"{folder}/{category}_0001_{kind}_{name}_C1.jpg"
                write_image(base / path)
                mask = None if kind == "OK" else path.replace(".jpg", ".png")
                if mask:
                    write_mask(base / mask)
                entries[name] = {
                    "category": category,
                    "anomaly_class": kind,
                    "image_path": path,
                    "mask_path": mask,
                }
            table = {
                "meta": {"prefix": f"{category}/", "normal_class": "OK"},
                "train": [entries["train"], entries["train2"]],
                "test": [entries["test"], entries["bad"]],
            }
            path = root / "realiad_jsons/realiad_jsons" / f"{category}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(table))
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
