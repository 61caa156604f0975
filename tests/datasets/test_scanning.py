"""Which files are nobody's images, and what readers say of files they pass over."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalanche_ad.datasets import (
    check_dataset,
    is_system_file,
    open_dataset,
    scanning,
)
from avalanche_ad.datasets.readers.mvtec_3d import MVTEC_3D_CATEGORIES
from avalanche_ad.datasets.readers.visa import VISA_CATEGORIES
from avalanche_ad.errors import DatasetError


@pytest.mark.parametrize(
    "name",
    [
        "._000.png",
        ".DS_Store",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "__MACOSX/good/000.png",
        ".thumbnails/000.png",
        "good/.cache/deep/000.png",
    ],
)
def test_hidden_and_system_files_are_known(name):
    assert is_system_file(Path(name))
    assert is_system_file(Path("/.data/images", name), Path("/.data/images"))
    assert is_system_file(Path("/images/__MACOSX/000.png"))


@pytest.mark.parametrize("name", ["000.png", "a.b.png", "good/000.png", "../000.png"])
def test_images_are_no_system_files_wherever_their_folder_is(name):
    assert not is_system_file(Path(name))
    assert not is_system_file(Path("/.data/images", name), Path("/.data/images"))
    assert not is_system_file(Path("/.data/images/000.png"))


def ignored(root, name="folder"):
    """Return what check says is passed over: path below the root -> files."""
    problems = check_dataset(name, root)
    assert {problem.severity for problem in problems} <= {"note"}
    return {
        problem.path.relative_to(root).as_posix(): problem.files
        for problem in problems
        if problem.message.startswith("ignored: ")
    }


def test_images_outside_of_the_folders_are_noted(folder_tree, image_file, mask_file):
    root = folder_tree(("gear",))
    for name in ("stray.png", "gear/a.png", "gear/b.JPG", "gear/train/c.png"):
        image_file(root / name)
    image_file(root / "gear/test/d.png")
    image_file(root / "gear/validation/good/e.png")
    mask_file(root / "gear/ground_truth/dent/000_mask.png")
    assert ignored(root) == {
        ".": 1,
        "gear": 2,
        "gear/train": 1,
        "gear/test": 1,
        "gear/validation": 1,
        "gear/ground_truth/dent": 1,
    }


def test_folders_that_are_no_category_are_noted(mvtec_3d_tree, image_file):
    root = mvtec_3d_tree(MVTEC_3D_CATEGORIES)
    assert ignored(root, "mvtec_3d") == {}
    image_file(root / "own_part/train/good/rgb/000.png")
    (root / "docs").mkdir()
    assert ignored(root, "mvtec_3d") == {"own_part": 1}


def test_images_that_visas_table_does_not_name_are_noted(visa_tree, image_file):
    root = visa_tree(VISA_CATEGORIES)
    assert ignored(root, "visa") == {}
    image_file(root / "candle/Data/Images/Normal/900.JPG")
    assert ignored(root, "visa") == {"candle/Data/Images/Normal": 1}


def test_system_folders_are_passed_over_in_silence(folder_tree, image_file):
    root = folder_tree(("gear",))
    image_file(root / "__MACOSX/gear/train/good/._000.png")
    image_file(root / "gear/train/good/__MACOSX/000.png")
    image_file(root / "gear/test/.cache/000.png")
    assert check_dataset("folder", root) == []


def test_a_link_that_leads_nowhere_is_an_error(folder_tree):
    root = folder_tree(("gear",))
    link = root / "gear/train/good/002.png"
    link.symlink_to(root / "elsewhere.png")
    with pytest.raises(DatasetError, match=r"002\.png: link to a file that is not"):
        open_dataset("folder", root)
    link.unlink()
    link.symlink_to(root / "gear/train/good/000.png")
    assert len(open_dataset("folder", root).samples) == 6


def test_linked_folders_are_read_and_loops_end(folder_tree, tmp_path):
    root = folder_tree(("gear",))
    (root / "gear/train/good").rename(tmp_path / "normal")
    (root / "gear/train/good").symlink_to(tmp_path / "normal")
    assert ignored(root) == {}
    (tmp_path / "normal/loop").symlink_to(root / "gear")
    assert ignored(root)["gear/train/good/loop"] == 5  # test images and masks


def test_training_images_one_folder_too_deep_are_pointed_at(folder_tree):
    root = folder_tree(("gear",))
    good = root / "gear/train/good"
    good.rename(root / "gear/train/set1")
    good.mkdir()
    (root / "gear/train/set1").rename(good / "set1")
    with pytest.raises(
        DatasetError, match="2 images in folders inside it: move them up"
    ):
        open_dataset("folder", root)


def test_an_unreadable_folder_is_one_error(folder_tree, monkeypatch):
    root = folder_tree(("gear",))
    closed, listed = root / "gear/train/good", Path.iterdir

    def iterdir(self):
        if self == closed:
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    problem = next(p for p in check_dataset("folder", root) if p.severity == "error")
    assert problem.path == closed
    assert problem.message.startswith("cannot be read: Permission denied")


def test_counting_stops_in_a_huge_folder(folder_tree, image_file, monkeypatch):
    monkeypatch.setattr(scanning, "_MOST_COUNTED", 2)
    root = folder_tree(("gear",))
    for number in range(2):
        image_file(root / "other" / str(number) / "000.png")
        image_file(root / "other" / str(number) / "001.png")
    (note,) = check_dataset("folder", root)
    assert note.message == "ignored: no train/good in it; at least 2 images in it"
