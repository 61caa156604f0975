"""``check`` lists every problem, each with its path, in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets import (
    DATASETS,
    DiskData,
    Sample,
    check_dataset,
    find_problems,
    open_dataset,
    verify,
)
from avalanche_ad.datasets.validation import Problem
from avalanche_ad.errors import DatasetError


def truncate(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_sound_tree_has_no_problem(folder_tree):
    root = folder_tree()
    assert check_dataset("folder", root) == []
    verify(open_dataset("folder", root))


def test_every_problem_of_one_tree_is_listed_once(folder_tree, mask_file, image_file):
    root = folder_tree(("bolt", "gear", "nut"))
    bolt, gear, nut = (root / name for name in ("bolt", "gear", "nut"))
    truncate(bolt / "train/good/000.png")
    (bolt / "train/good/001.png").write_bytes(b"")
    mask_file(bolt / "ground_truth/hole/000_mask.png", size=20)
    Image.new("RGB", (40, 8), "red").save(bolt / "test/good/000.png")
    truncate(gear / "ground_truth/hole/000_mask.png")
    (gear / "test/scratch/000.png").write_bytes(b"text")
    image_file(gear / "train/good/000.jpg")
    (nut / "train/good").rename(nut / "train/fine")
    (nut / "train/good").mkdir()

    problems = check_dataset("folder", root)
    errors = {
        (problem.path.relative_to(root).as_posix(), problem.message.split(";")[0])
        for problem in problems
        if problem.severity == "error"
    }
    image = bolt / "test/hole/000.png"
    assert errors == {
        ("bolt/train/good/000.png", next_reason(bolt / "train/good/000.png")),
        ("bolt/train/good/001.png", "not an image, or its header is damaged"),
        ("bolt/test/good/000.png", "image of 40x8 pixels"),
        (
            "bolt/ground_truth/hole/000_mask.png",
            "mask of 20x20 pixels",
        ),
        (
            "gear/ground_truth/hole/000_mask.png",
            next_reason(gear / "ground_truth/hole/000_mask.png"),
        ),
        ("gear/test/scratch/000.png", "not an image, or its header is damaged"),
        ("gear/train/good/000.png", "same name as 000.jpg"),
        ("nut/train/good", "no training image"),
    }
    lines = [str(problem) for problem in problems]
    assert len(set(lines)) == len(lines)
    assert not any("\n" in line for line in lines)
    assert any(f"expected 16x16, the size of {image}" in line for line in lines)
    severities = [problem.severity for problem in problems]
    assert severities == sorted(severities)


def next_reason(path: Path) -> str:
    """The first part of what loading a truncated file says."""
    from avalanche_ad.datasets.loading import load_image

    with pytest.raises(DatasetError) as caught:
        load_image(path)
    return str(caught.value).removeprefix(f"{path}: ").split(";")[0]


def test_opening_raises_the_first_error_that_check_lists(folder_tree):
    root = folder_tree()
    Image.new("RGB", (40, 8)).save(root / "bolt/test/good/000.jpg")
    (root / "gear/train/good").rename(root / "gear/train/fine")
    (root / "gear/train/good").mkdir()
    first = check_dataset("folder", root)[0]
    with pytest.raises(DatasetError) as caught:
        open_dataset("folder", root)
    assert str(caught.value) == str(first)


def test_verify_raises_the_first_error_and_passes_over_notes(folder_tree):
    root = folder_tree()
    Image.new("L", (16, 16)).save(root / "bolt/train/good/000.png")
    data = open_dataset("folder", root)
    verify(data)
    truncate(root / "gear/test/good/000.png")
    with pytest.raises(DatasetError, match=r"gear/test/good/000.png: .*truncated"):
        verify(data)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (16, 16)), "1 image grey"),
        (Image.new("RGBA", (16, 16)), "1 image with an alpha channel"),
        (Image.new("I;16", (16, 16), 60000), "1 image 16-bit grey, scaled"),
        (Image.new("I;16", (16, 16), 1000), "1 image 16-bit grey of which 10 bits"),
        (Image.new("P", (16, 16)), "1 image in colour mode P"),
    ],
)
def test_converted_images_are_noted(folder_tree, image, expected):
    root = folder_tree()
    path = root / "bolt/train/good/000.png"
    image.save(path)
    (problem,) = check_dataset("folder", root)
    assert problem.path == path
    assert problem.message.startswith(expected)
    assert problem.severity == "note"


def test_converted_images_are_counted_by_category(folder_tree):
    root = folder_tree()
    for path in (root / "gear").glob("t*/*/*.png"):
        Image.open(path).convert("L").save(path)
    (problem,) = check_dataset("folder", root)
    assert problem == Problem(
        root / "gear", "5 images grey, read as three equal channels", "note"
    )


def test_test_split_of_one_class_is_noted(folder_tree):
    root = folder_tree(("gear",))
    (root / "gear/test/good/000.png").unlink()
    notes = {p.message for p in check_dataset("folder", root)}
    assert any("has only anomalous test images; its AUROC" in note for note in notes)
    assert any(note.startswith("ignored: no image in it") for note in notes)


def test_odd_masks_are_noted(folder_tree, mask_file):
    root = folder_tree(("gear",))
    empty = mask_file(root / "gear/ground_truth/hole/000_mask.png", value=0)
    full = root / "gear/ground_truth/scratch/000_mask.png"
    Image.new("L", (16, 16), 255).save(full.with_suffix(".jpg"))
    full.unlink()
    problems = check_dataset("folder", root)
    assert {p.severity for p in problems} == {"note"}
    assert [p.path for p in problems] == [empty, *[full.with_suffix(".jpg")] * 2]
    assert "all zero" in problems[0].message
    assert "covering the whole image" in problems[1].message
    assert "lossy" in problems[2].message


def test_leak_from_train_to_test_is_noted(folder_tree):
    root = folder_tree(("gear",))
    source = root / "gear/train/good/001.png"
    copy = root / "gear/test/good/000.png"
    copy.write_bytes(source.read_bytes())
    (problem,) = check_dataset("folder", root)
    assert (problem.path, problem.severity) == (copy, "note")
    assert problem.message == f"same content as training image {source}"


def test_what_reading_passes_over_is_noted(folder_tree, image_file, mask_file):
    root = folder_tree(("gear",))
    (root / "license").mkdir()
    (root / "gear/train/good/notes.txt").write_bytes(b"")
    (root / "gear/train/good/more").mkdir()
    image_file(root / "gear/train/broken/000.png")
    mask_file(root / "gear/ground_truth/hole/777_mask.png")
    problems = check_dataset("folder", root)
    assert {p.severity for p in problems} == {"note"}
    assert {p.path.name for p in problems} == {
        "license",
        "notes.txt",
        "more",
        "broken",
        "777_mask.png",
    }
    assert all(p.message.startswith("ignored: ") for p in problems)


@pytest.mark.parametrize(
    "name",
    [name for name, reader in DATASETS.own.items() if reader.needs_root],
)
def test_check_of_a_missing_root_is_one_problem(name, tmp_path):
    (problem,) = check_dataset(name, tmp_path / "nowhere")
    assert problem.severity == "error"
    assert problem.path == tmp_path / "nowhere"


def test_check_lists_every_missing_category(folder_tree):
    root = folder_tree(("bottle",))
    errors = [p for p in check_dataset("mvtec_ad", root) if p.severity == "error"]
    assert len(errors) == 14


def test_progress_is_told_of_every_image(folder_tree):
    data = open_dataset("folder", folder_tree(("gear",)))
    told = []
    find_problems(data, lambda done, total: told.append((done, total)))
    assert told == [(number, 5) for number in range(1, 6)]


class InMemory:
    """A data set whose images are no files."""

    name = "memory"
    categories = ("gear",)
    samples = (
        Sample(Path("gear/0"), "gear", "train"),
        Sample(Path("gear/1"), "gear", "test"),
        Sample(Path("gear/2"), "gear", "test", "hole"),
    )

    def image(self, sample):
        return np.full((16, 16, 3), int(sample.path.name), dtype=np.uint8)

    def mask(self, sample):
        return np.full((16, 16), sample.is_anomaly)

    def fingerprint(self, sample):
        return sample.path.name


def test_data_in_memory_is_checked_too():
    (note,) = find_problems(InMemory())
    assert "covering the whole image" in note.message
    broken = InMemory()
    broken.mask = lambda sample: np.ones((8, 8), dtype=np.bool_)
    broken.samples = (
        *InMemory.samples,
        Sample(Path("gear/3"), "gear", "train", "hole"),
    )
    messages = [p.message for p in find_problems(broken) if p.severity == "error"]
    assert messages[0] == "anomalous image in the train split"
    assert messages[1].startswith("mask of 8x8 pixels; expected 16x16")


def test_samples_that_point_nowhere(tmp_path):
    sample = Sample(tmp_path / "a.png", "gear", "test", "hole", (tmp_path / "b.png",))
    errors = [
        str(p)
        for p in find_problems(DiskData("own", (sample,)))
        if p.severity == "error"
    ]
    assert errors == [
        f"{tmp_path / name}: file not found" for name in ("a.png", "b.png")
    ]
