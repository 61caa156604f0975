"""What is odd about files is counted, by category for check, in a line for a run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets import DiskData, Sample, check_dataset, open_dataset
from avalanche_ad.datasets.disk import Problem
from avalanche_ad.datasets.loading import Remark
from avalanche_ad.datasets.notes import Remarks, mask_and_remarks, tell


@pytest.fixture
def told(caplog):
    """Return the lines that a run on a folder would log."""

    def lines(root, name="folder"):
        caplog.clear()
        data, remarks = open_dataset(name, root), Remarks()
        for sample in data.samples:
            if sample.is_anomaly:
                for remark in mask_and_remarks(data, sample)[1]:
                    remarks.add(
                        "mask", sample.category, list(sample.mask_paths), remark
                    )
        with caplog.at_level(logging.WARNING, "avalanche_ad"):
            tell(data, data.samples, remarks)
        assert all(hasattr(record, "note") for record in caplog.records)
        return [record.getMessage() for record in caplog.records]

    return lines


def with_orientation(path: Path, orientation: int = 3, name: str | None = None) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
        target = path.with_name(name) if name else path
        image.save(target, exif=exif)
    return target


def test_a_sound_tree_is_told_nothing_of(folder_tree, told):
    assert told(folder_tree()) == []


def test_what_is_passed_over_is_one_line_that_counts_images(
    folder_tree, image_file, told
):
    root = folder_tree()
    night = root / "bolt/train/good/night"
    for number in range(4):
        image_file(night / f"{number}.png")
    image_file(night / "deeper/5.jpg")
    image_file(night / ".hidden/6.png")
    (night / "Thumbs.db").write_bytes(b"")
    (root / "bolt/train/good/notes.txt").write_bytes(b"")
    (root / "bolt/test/empty").mkdir()
    for number in range(2):
        image_file(root / "gear/ground_truth/hole" / f"99{number}_mask.png")
    (line,) = told(root)
    assert line == (
        f"8 files below {root} are ignored: 5 images in bolt/train/good/night, "
        "bolt/train/good/notes.txt, …; avalanche-ad check with the same -b and --data "
        "lists them"
    )


def test_an_image_in_the_root_is_in_it(folder_tree, image_file, told):
    root = folder_tree()
    image_file(root / "stray.png")
    (line,) = told(root)
    assert line.startswith(f"1 file below {root} is ignored: 1 image in it;")


def test_one_file_is_one_file(folder_tree, told):
    root = folder_tree()
    (root / "bolt/train/good/notes.txt").write_bytes(b"")
    (line,) = told(root)
    assert line.startswith(
        f"1 file below {root} is ignored: bolt/train/good/notes.txt;"
    )


def test_images_that_are_turned_or_have_pages_are_a_line_each(folder_tree, told):
    root = folder_tree()
    for name in ("bolt/train/good/000.png", "gear/train/good/000.png"):
        with_orientation(root / name, 6)
    page = Image.new("RGB", (16, 16), "red")
    pages = root / "bolt/test/good/000.png"
    pages.unlink()
    page.save(pages.with_suffix(".tif"), save_all=True, append_images=[page])
    turned, more = sorted(told(root), key=lambda line: "frames" in line)
    assert turned.startswith(
        "2 images of bolt, gear with an EXIF orientation, which is"
    )
    assert more.startswith("1 image of bolt with further frames or pages, ignored:")
    assert str(pages.with_suffix(".tif")) in more
    assert {str(p.path) for p in check_dataset("folder", root)} == {
        str(root / "bolt/train/good/000.png"),
        str(root / "gear/train/good/000.png"),
        str(pages.with_suffix(".tif")),
    }


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_dark_images_of_twelve_bits_are_one_line(folder_tree, told, png16, kind):
    root = folder_tree()
    generator = np.random.default_rng(0)
    shape = (16, 16, 1 if kind == "grey" else 3)
    for path in root.glob("*/t*/*/*.png"):
        pixels = generator.integers(0, 4096, shape).astype(np.uint16)
        path.write_bytes(png16(pixels))
    (line,) = told(root)
    assert line.startswith(
        f"6 images of bolt, gear 16-bit {kind} of which 12 bits are used, nearly black"
    )
    assert "(3 of a category are looked at)" in line
    notes = [p.message for p in check_dataset("folder", root)]
    assert len(notes) == 2
    assert all(note.startswith(f"5 images 16-bit {kind} of which 12") for note in notes)


def test_only_images_that_were_looked_at_are_told_of(folder_tree, told, png16):
    root = folder_tree()
    paths = sorted(root.glob("bolt/t*/*/*.png"))
    found = []
    for dark in paths:
        for path in paths:
            top = 16383 if path == dark else 65535
            path.write_bytes(png16(np.full((16, 16, 1), top, np.uint16)))
        found += told(root)
    assert len(found) == 3 < len(paths)
    for line in found:
        start = "1 image of bolt 16-bit grey of which 14 bits are used, dark"
        assert line.startswith(start)


def test_bright_images_of_sixteen_bits_are_no_line(folder_tree, told, png16):
    root = folder_tree()
    for path in root.glob("*/t*/*/*.png"):
        path.write_bytes(png16(np.full((16, 16, 3), 50000, np.uint16)))
    assert told(root) == []


def test_inverted_masks_are_told(folder_tree, told):
    root = folder_tree()
    for path in root.glob("*/ground_truth/*/*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(255 - pixels).save(path)
    (line,) = told(root)
    assert line.startswith("4 masks of bolt, gear covering up to 92 % of the image")
    assert ": inverted? White" in line
    notes = [p.message for p in check_dataset("folder", root)]
    assert [note.split(" % ")[0] for note in notes] == ["2 masks covering up to 92"] * 2


def test_a_large_defect_is_not_taken_for_an_inverted_mask(folder_tree, told):
    root = folder_tree()
    for path in root.glob("*/ground_truth/*/*.png"):
        pixels = np.zeros((16, 16), np.uint8)
        pixels[1:15, 1:] = 255
        Image.fromarray(pixels).save(path)
    assert told(root) == []


def test_empty_and_noisy_masks_are_told(folder_tree, told):
    root = folder_tree()
    noise = np.random.default_rng(0).integers(1, 9, (16, 16)).astype(np.uint8)
    noise[4:9, 4:9] = 255
    Image.fromarray(noise).save(root / "bolt/ground_truth/hole/000_mask.png")
    Image.new("L", (16, 16)).save(root / "gear/ground_truth/hole/000_mask.png")
    noisy, empty = told(root)
    assert noisy.startswith(
        "1 mask of bolt with noise or blurred edges, read as defect"
    )
    assert empty.startswith("1 mask of gear all zero, but of an anomalous image")


def test_files_that_cannot_be_read_are_left_to_others(folder_tree, told):
    root = folder_tree()
    (root / "bolt/train/good/000.png").write_bytes(b"no image")
    assert told(root) == []


def test_remarks_merge_levels_and_categories():
    remarks = Remarks()
    remarks.add("image", "a", [Path("/r/a/1")], Remark("of {level} bits", 3, True))
    remarks.add("image", "a", [Path("/r/a/2")], Remark("of {level} bits", 9, True))
    remarks.add("image", "b", [Path("/r/b/1")], Remark("of {level} bits", 5, True))
    remarks.add("mask", "b", [Path("/r/b/2")], Remark("grey"))
    assert list(remarks.lines()) == ["3 images of a, b of 9 bits (such as /r/a/1)"]
    assert list(remarks.problems()) == [
        Problem(Path("/r/a"), "2 images of 9 bits", "note"),
        Problem(Path("/r/b/1"), "1 image of 5 bits", "note"),
        Problem(Path("/r/b/2"), "1 mask grey", "note"),
    ]


def test_notes_ride_along_and_do_not_tell_data_sets_apart():
    sample = Sample(Path("a/0.png"), "a", "train")
    note = Problem(Path("a/x"), "ignored", "note", files=1)
    data = DiskData.open("own", [sample, note])
    assert data.notes == (note,)
    assert data == DiskData("own", (sample,))
