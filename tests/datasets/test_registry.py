"""Data sets by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avalanche_ad.datasets import (
    DATASETS,
    SyntheticAD,
    check_dataset,
    open_dataset,
)
from avalanche_ad.errors import DatasetError


def test_names():
    assert DATASETS == (
        "synthetic",
        "mvtec_ad",
        "visa",
        "btad",
        "mvtec_3d",
        "folder",
    )


@pytest.mark.parametrize("use", [open_dataset, check_dataset])
@pytest.mark.parametrize("name", DATASETS[1:])
def test_root_is_needed(use, name):
    with pytest.raises(DatasetError, match=f"data set {name} needs --data DIR"):
        use(name)


@pytest.mark.parametrize("use", [open_dataset, check_dataset])
def test_unknown_name(use, tmp_path):
    with pytest.raises(DatasetError, match="unknown data set 'mvtec'; did you mean"):
        use("mvtec", tmp_path)


def test_open_passes_the_selection_on(folder_tree):
    data = open_dataset("folder", folder_tree(), ["gear"])
    assert data.categories == ("gear",)
    assert data.name == "folder"


def test_synthetic_needs_no_root():
    data = open_dataset("synthetic", size=64, seed=3)
    assert isinstance(data, SyntheticAD)
    assert data.image(data.samples[0]).shape == (64, 64, 3)
    chosen = data.categories[1:2]
    assert open_dataset("synthetic", categories=chosen, size=64).categories == chosen


def test_synthetic_is_sound():
    first = open_dataset("synthetic").categories[0]
    assert [
        p for p in check_dataset("synthetic", None, [first]) if p.severity == "error"
    ] == []


def test_unknown_attribute():
    import avalanche_ad.datasets

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        avalanche_ad.datasets.nothing  # noqa: B018


def test_import_is_light():
    code = (
        "import sys, avalanche_ad.datasets as d; "
        "print(sorted({'torch', 'scipy', 'avalanche'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def find_surfaces() -> Path | None:
    """The real data set beside the checkout, or where the environment says."""
    named = os.environ.get("AVALANCHE_AD_SURFACES")
    beside = Path(__file__).parents[3] / "shared" / "data" / "surfaces"
    path = Path(named) if named else beside
    return path if path.is_dir() else None


@pytest.mark.skipif(find_surfaces() is None, reason="the surfaces data set is not here")
def test_surfaces():
    root = find_surfaces()
    data = open_dataset("folder", root)
    assert data.categories == ("pcb_a", "pcb_b", *(f"tile_light{n}" for n in "1234"))
    for category in data.categories:
        own = [sample for sample in data.samples if sample.category == category]
        assert sum(sample.split == "train" for sample in own) == 60
    problems = check_dataset("folder", root)
    assert not [problem for problem in problems if problem.severity == "error"]
    grey = [problem for problem in problems if "grey" in problem.message]
    assert len(grey) == len(data.categories)
