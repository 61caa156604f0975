"""Images of one's own, as the README says they are read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.benchmarks import SplitCSV, SplitFolder
from avalanche_ad.datasets import open_dataset
from avalanche_ad.experiments.build import open_data
from avalanche_ad.recipes import load_experiment

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
SIZES = {"image_size": 32, "mask_size": 32}


def write(path: Path, mask: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(path.name.encode())).integers(
        0, 256, (32, 32, 3)
    )
    if mask:
        pixels = np.zeros((32, 32), np.uint8)
        pixels[:4, : 9 if "b" in path.stem else 5] = 255
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def read_block(language: str) -> str:
    section = README.split("\n## Own images\n")[1].split("\n## ")[0]
    (block,) = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    return block


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A category with ok, ng and masks in each of two folders."""
    for root, name in (("parts", "gear"), ("home/more_parts", "axle")):
        for number in range(10):
            write(tmp_path / root / name / "ok" / f"{number:03}.png")
        write(tmp_path / root / name / "ng/scratch/017.png")
        write(tmp_path / root / name / "masks/scratch/017.png", mask=True)
    return tmp_path


def test_the_recipe_of_the_readme(parts, monkeypatch, cli):
    monkeypatch.setenv("HOME", str(parts / "home"))
    path = parts / "own.toml"
    path.write_text(read_block("toml"), "utf-8")
    data = open_data(load_experiment(str(path), "naive").benchmark, None)
    assert data.categories == ("axle", "gear")
    for name in data.categories:
        own = [s for s in data.samples if s.category == name]
        assert sum(s.split == "train" for s in own) == 8
        assert sum(s.split == "test" and not s.is_anomaly for s in own) == 2
        (anomaly,) = (s for s in own if s.is_anomaly)
        assert anomaly.defect_type == "scratch"
        assert [mask.name for mask in anomaly.mask_paths] == ["017.png"]
    done = cli("check", "-b", path)
    assert done.code == 0, done.out
    assert "2 categories, 16 training and 6 test images" in " ".join(done.err.split())
    # the command line goes before the recipe
    done = cli("check", "-b", path, "--data", parts / "parts")
    assert "1 category, 8 training and 3 test images" in " ".join(done.err.split())


def test_the_builder_of_the_readme(parts, monkeypatch):
    monkeypatch.chdir(parts)
    names = {"normal_dir": "OK", "abnormal_dir": "NG", "mask_dir": "masks"}
    held = {"normal_split_ratio": 0.2, "split_seed": 1}
    stream = SplitFolder(1, dataset_root="parts", **names, **held, **SIZES)
    assert stream.category_names == ("gear",)
    assert len(stream.test_stream[0].dataset) == 3
    assert sum(bool(item[3].any()) for item in stream.test_stream[0].dataset) == 1


def test_the_table_of_the_readme(tmp_path):
    table = read_block("csv")
    (tmp_path / "images.csv").write_text(table, "utf-8")
    for name in re.findall(r"photos/\w+\.png", table):
        write(tmp_path / name)
    for name in re.findall(r"masks/\w+\.png", table):
        write(tmp_path / name, mask=True)
    data = open_dataset("csv", tmp_path)
    assert [s.defect_type for s in data.samples] == ["scratch", "good"]
    assert data.mask(data.samples[0]).sum() == 4 * 9  # the larger of two
    stream = SplitCSV(1, dataset_root=tmp_path, table="images.csv", **SIZES)
    assert stream.category_names == ("gear",)
    (tmp_path / "images.csv").write_text(
        "\n".join(line.rpartition(",")[0] for line in table.splitlines()), "utf-8"
    )
    data = open_dataset("csv", tmp_path)
    assert [s.mask_paths for s in data.samples] == [(), ()]
