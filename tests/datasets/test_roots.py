"""One data set in several folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalanche_ad.datasets import check_dataset, open_dataset
from avalanche_ad.datasets.readers.mvtec_3d import MVTEC_3D_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_ad import MVTEC_AD_CATEGORIES
from avalanche_ad.datasets.readers.visa import VISA_CATEGORIES
from avalanche_ad.datasets.roots import as_roots
from avalanche_ad.errors import DatasetError

READERS = ("folder", "mvtec_ad", "visa", "btad", "mvtec_3d")


@pytest.fixture(params=READERS)
def case(request, folder_tree, btad_tree, visa_tree, mvtec_3d_tree):
    root = {
        "folder": folder_tree,
        "mvtec_ad": lambda: folder_tree(MVTEC_AD_CATEGORIES),
        "visa": lambda: visa_tree(VISA_CATEGORIES),
        "btad": lambda: btad_tree,
        "mvtec_3d": lambda: mvtec_3d_tree(MVTEC_3D_CATEGORIES),
    }[request.param]()
    return request.param, root


def move(root: Path, names, to: Path) -> Path:
    """Move categories to another root; VisA's table goes with both."""
    to.mkdir()
    for name in names:
        (root / name).rename(to / name)
    table = root / "split_csv" / "1cls.csv"
    if table.is_file():
        (to / "split_csv").mkdir()
        (to / "split_csv" / "1cls.csv").write_text(table.read_text())
    return to


def contents(data):
    return [(s.category, s.split, s.defect_type, s.path.name) for s in data.samples]


def test_spread_over_folders_it_is_the_same_data_set(case, tmp_path):
    name, root = case
    whole = open_dataset(name, root)
    other = move(root, whole.categories[::2], tmp_path / "other")
    joined = open_dataset(name, [root, str(other)])
    assert joined.name == name
    assert joined.categories == whole.categories
    assert contents(joined) == contents(whole)
    assert joined == open_dataset(name, (other, root))
    assert check_dataset(name, [root, other]) == []
    # a selection, in any order
    some = [whole.categories[1], whole.categories[0]]
    assert open_dataset(name, [root, other], some).categories == whole.categories[:2]


@pytest.fixture
def two(folder_tree, tmp_path):
    root = folder_tree(("axle", "gear", "nut"))
    return root, move(root, ["axle"], tmp_path / "other")


def only_error(*arguments) -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_same_category_in_two_folders(two, image_file, tmp_path):
    root, other = two
    image_file(other / "gear/train/good/0.png")
    image_file(other / "gear/test/good/0.png")
    message = only_error("folder", two)
    assert message.startswith(f"{other}: category 'gear' is in {root} too; rename")
    # one that is not asked for does not matter
    assert open_dataset("folder", two, ["nut", "axle"]).categories == ("axle", "nut")


def test_a_category_in_no_folder(two):
    root, other = two
    assert only_error("folder", two, ["axle", "nuts"]) == (
        f"{root}: category 'nuts' is in none of the data folders; did you mean 'nut'? "
        f"{root} holds gear, nut; {other} holds axle"
    )
    assert "name at least one" in only_error("folder", two, [])


def test_a_category_without_any_image_is_told_and_not_dropped(two):
    root, other = two
    for path in (root / "gear").rglob("*.png"):
        path.unlink()
    message = only_error("folder", (root, other))
    assert message.startswith(str(root / "gear/train/good"))
    assert "no training image" in message
    # one that is not asked for does not matter
    assert open_dataset("folder", two, ["nut", "axle"]).categories == ("axle", "nut")


def test_a_category_whose_folder_is_broken_is_told_by_its_reader(
    mvtec_3d_tree, tmp_path
):
    root = mvtec_3d_tree(("bagel", "carrot"))
    other = move(root, ["carrot"], tmp_path / "other")
    for path in (other / "carrot").rglob("rgb/*"):
        path.unlink()
    message = only_error("mvtec_3d", (root, other), ["bagel", "carrot"])
    assert message.startswith(f"{other / 'carrot'}")
    assert "no training image" in message


def test_a_folder_that_is_not_there_or_holds_nothing(two, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, words in (("nowhere", "folder not found"), ("empty", "no category")):
        assert only_error("folder", (*two, tmp_path / name)).startswith(
            f"{tmp_path / name}: {words}"
        )


def test_a_folder_with_nothing_that_is_asked_for_is_noted(two):
    (note,) = check_dataset("folder", two, ["gear", "nut"])
    assert note.severity == "note"
    assert str(note) == (
        f"{two[1]}: ignored: no category asked for in it; it holds axle"
    )


def test_relative_and_absolute_folders_go_together(two, image_file, monkeypatch):
    root, other = two
    image_file(other / "stray.png")
    image_file(root / "stray.png")
    monkeypatch.chdir(root.parent)
    data = open_dataset("folder", ["set", other])
    assert {note.path for note in data.notes} == {root, other}


def test_roots_as_they_may_be_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_roots(None) == as_roots(()) == ()
    assert as_roots("~/a") == (tmp_path / "a",)
    assert as_roots([tmp_path, "b"]) == (tmp_path, Path("b"))
    with pytest.raises(DatasetError, match="is given twice"):
        as_roots([tmp_path / "a", tmp_path / "b" / ".." / "a"])


OWN = """
from avalanche_ad.datasets import DatasetReader, DiskReader, Sample

class Array(DatasetReader):
    def open(self, image_size=128):
        raise AssertionError

class Weighed(DiskReader):  # in an order of its own
    def scan(self):
        for folder in sorted(self.root.iterdir(), reverse=True):
            if self.categories is None or folder.name in self.categories:
                for path in sorted(folder.glob("*.png")):
                    yield Sample(path, folder.name, "train")
"""


@pytest.fixture
def own(tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "joined_reader.py").write_text(OWN)
    return folder


def test_a_reader_of_ones_own(own, tmp_path, image_file):
    roots = tmp_path / "a", tmp_path / "b"
    for root, names in zip(roots, ("pr", "qs"), strict=True):
        for name in names:
            image_file(root / name / "0.png")
    data = open_dataset("joined_reader.Weighed", roots, folder=own)
    assert data.categories == ("r", "p", "s", "q")
    with pytest.raises(DatasetError, match="reads one folder, got .*a, .*b"):
        open_dataset("joined_reader.Array", roots, folder=own)


def test_drawn_images_have_no_folder(tmp_path):
    data = open_dataset("synthetic", [tmp_path, tmp_path / "b"], ["gear"])
    assert data.categories == ("gear",)
