"""Data sets by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avalanche_ad.datasets import (
    DATASETS,
    DatasetReader,
    SyntheticAD,
    check_dataset,
    open_dataset,
)
from avalanche_ad.errors import DatasetError, RecipeError

ON_DISK = (
    *("btad", "csv", "folder", "kolektor_sdd", "kolektor_sdd2", "mpdd", "mvtec_3d"),
    *("mvtec_ad", "mvtec_ad_2", "mvtec_loco", "real_iad", "visa"),
)


def test_names():
    assert set(DATASETS.own) == {*ON_DISK, "synthetic"}
    for name, reader in DATASETS.own.items():
        assert issubclass(reader, DatasetReader)
        assert reader.needs_root == (name in ON_DISK)


@pytest.mark.parametrize("use", [open_dataset, check_dataset])
@pytest.mark.parametrize("name", ON_DISK)
def test_root_is_needed(use, name):
    with pytest.raises(DatasetError, match=f"data set {name} needs --data DIR"):
        use(name)


@pytest.mark.parametrize("use", [open_dataset, check_dataset])
def test_unknown_name(use, tmp_path):
    with pytest.raises(RecipeError, match="unknown dataset 'mvtec' .did you mean"):
        use("mvtec", tmp_path)


@pytest.mark.parametrize("use", [open_dataset, check_dataset])
@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("btad", {"seed": 1}, "dataset 'btad' has no option 'seed'; it takes none"),
        ("synthetic", {"sed": 1}, "no option 'sed' .did you mean 'seed'.*; it takes "),
        ("synthetic", {"seed": "one"}, "'synthetic': seed should be a valid integer"),
    ],
)
def test_wrong_options_are_told_in_one_line(use, name, options, words):
    with pytest.raises(RecipeError, match=words) as caught:
        use(name, ".", **options)
    assert "\n" not in str(caught.value)


def test_open_passes_the_selection_on(folder_tree):
    data = open_dataset("folder", folder_tree(), ["gear"])
    assert data.categories == ("gear",)
    assert data.name == "folder"


def test_synthetic_needs_no_root():
    data = open_dataset("synthetic", image_size=64, seed=3, test_normals=5)
    assert isinstance(data, SyntheticAD)
    assert (data.seed, data.test_normals) == (3, 5)
    assert data.image(data.samples[0]).shape == (64, 64, 3)
    chosen = data.categories[1:2]
    assert open_dataset("synthetic", categories=chosen).categories == chosen


def test_synthetic_is_sound():
    first = open_dataset("synthetic").categories[0]
    assert [
        p for p in check_dataset("synthetic", None, [first]) if p.severity == "error"
    ] == []


OWN = """
from avalanche_ad.datasets import DiskReader, Problem, Sample

class Flat(DiskReader):
    def __init__(self, root=None, categories=None, *, ending: str = "png"):
        super().__init__(root, categories)
        self.ending = ending

    def scan(self):
        for folder in sorted(self.root.iterdir()):
            yield Problem(folder / "notes", "not read", "note")
            for path in sorted(folder.glob(f"*.{self.ending}")):
                yield Sample(path, folder.name, "train")
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Return the folder of a module with a reader of its own."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "flat_reader.py").write_text(OWN)
    return folder


def test_a_reader_beside_the_recipe(own, tmp_path, image_file):
    image_file(tmp_path / "set" / "gear" / "a.png")
    image_file(tmp_path / "set" / "gear" / "b.bmp")
    where = ("flat_reader.Flat", tmp_path / "set")
    data = open_dataset(*where, folder=own)
    assert (data.name, data.categories) == ("Flat", ("gear",))
    assert [sample.path.name for sample in data.samples] == ["a.png"]
    other = open_dataset(*where, folder=own, ending="bmp")
    assert [sample.path.name for sample in other.samples] == ["b.bmp"]
    note, untested = check_dataset(*where, folder=own)
    assert str(note) == f"{tmp_path / 'set' / 'gear' / 'notes'}: not read"
    assert untested.message.startswith("no test image of 'gear'")


def test_a_folder_that_cannot_be_listed_is_told_in_one_line(own, tmp_path):
    where = ("flat_reader.Flat", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="nowhere: cannot be read: No such file"):
        open_dataset(*where, folder=own)
    (problem,) = check_dataset(*where, folder=own)
    assert "cannot be read" in str(problem)


def test_a_reader_that_does_not_exist(tmp_path):
    with pytest.raises(RecipeError, match="dataset 'nothing.Here': there is no such"):
        open_dataset("nothing.Here", tmp_path, folder=tmp_path)


def test_unknown_attribute():
    import avalanche_ad.datasets

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        avalanche_ad.datasets.nothing  # noqa: B018


def test_import_is_light():
    code = (
        "import sys, avalanche_ad.datasets as d; d.DATASETS.names(); "
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
