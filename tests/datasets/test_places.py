"""Folders of any names: normal, abnormal and masks as the options say."""

from __future__ import annotations

import pytest

from avalanche_ad.datasets import check_dataset, open_dataset
from avalanche_ad.datasets.places import held_out
from avalanche_ad.errors import DatasetError, RecipeError


@pytest.fixture
def tree(tmp_path, image_file, mask_file):
    """Write files named by their paths; masks where a part of the path says so."""

    def write(*names):
        for name in names:
            path = tmp_path / "set" / name
            masks = ("mask" in name) or ("ground_truth" in name)
            # one area a file, so that a union differs from its parts
            mask_file(path) if masks else image_file(path)
        return tmp_path / "set"

    return write


def found(root, **options):
    """Return split, defect, masks of every image, by their paths below a category."""
    data = open_dataset("folder", root, **options)
    return {
        s.path.relative_to(root / s.category).as_posix(): (
            s.split,
            s.defect_type,
            [mask.relative_to(root / s.category).as_posix() for mask in s.mask_paths],
        )
        for s in data.samples
    }


def notes(root, **options):
    problems = check_dataset("folder", root, **options)
    return {p.path.relative_to(root).as_posix(): p.message for p in problems}


@pytest.mark.parametrize(
    ("normal", "abnormal", "asked"),
    [("ok", "ng", "ok"), ("Good", "Bad", "good"), ("OK", "NG", "OK")],
)
def test_two_folders(tree, normal, abnormal, asked):
    names = [f"{normal}/{n}.png" for n in range(5)] + [f"{abnormal}/0.png"]
    root = tree(*(f"part/{name}" for name in names))
    options = {"normal_dir": asked, "abnormal_dir": abnormal.lower()}
    plain = found(root, **options)
    assert [split for split, *_ in plain.values()].count("train") == 5
    assert plain[f"{abnormal}/0.png"] == ("test", abnormal, [])

    split = found(root, **options, normal_split_ratio=0.4)
    held = [n for n, (s, d, _) in split.items() if (s, d) == ("test", "good")]
    assert len(held) == 2
    assert split == found(root, **options, normal_split_ratio=0.4)
    seeds = {
        str(found(root, **options, normal_split_ratio=0.4, split_seed=seed))
        for seed in range(9)
    }
    assert len(seeds) > 1


def test_the_usual_folders_in_another_case(tree):
    root = tree(
        *("part/train/Good/0.png", "part/train/Good/1.png", "part/test/GOOD/0.png"),
        *("part/test/Hole/0.png", "part/Ground_Truth/Hole/0_mask.png"),
    )
    assert found(root) == {
        "train/Good/0.png": ("train", "good", []),
        "train/Good/1.png": ("train", "good", []),
        "test/GOOD/0.png": ("test", "good", []),
        "test/Hole/0.png": ("test", "Hole", ["Ground_Truth/Hole/0_mask.png"]),
    }


def test_separate_tests_and_types_below(tree):
    root = tree(
        *("part/train/ok/0.png", "part/train/ok/more/1.png"),
        *("part/test/OK/2.png", "part/test/OK/line1/3.png"),
        *("part/test/NG/4.png", "part/test/NG/scratch/5.png"),
        *("part/test/NG/scratch/deep/6.png", "part/test/other/7.png"),
    )
    options = {
        "normal_dir": "train/ok",
        "normal_test_dir": "test/ok",
        "abnormal_dir": "test/ng",
        "normal_split_ratio": 0.5,  # there are others, so none is held out
    }
    assert found(root, **options) == {
        "train/ok/0.png": ("train", "good", []),
        "train/ok/more/1.png": ("train", "good", []),
        "test/OK/2.png": ("test", "good", []),
        "test/OK/line1/3.png": ("test", "good", []),
        "test/NG/4.png": ("test", "NG", []),
        "test/NG/scratch/5.png": ("test", "scratch", []),
        "test/NG/scratch/deep/6.png": ("test", "scratch/deep", []),
    }
    data = open_dataset("folder", root, **options)
    (note,) = data.notes
    assert note.message == "ignored: no option of the data set names it; 1 image in it"
    assert note.path == root / "part/test/other"


def test_several_folders_and_defaults(tree):
    root = tree(
        *("a/ok/0.png", "a/extra/1.png", "a/dent/2.png", "a/cut/3.png"),
        *("b/ok/0.png", "b/test/good/1.png", "b/test/hole/2.png"),
    )
    assert found(root, normal_dir=["ok", "extra"], abnormal_dir=["dent", "cut"]) == {
        "ok/0.png": ("train", "good", []),
        "extra/1.png": ("train", "good", []),
        "dent/2.png": ("test", "dent", []),
        "cut/3.png": ("test", "cut", []),
        "test/good/1.png": ("test", "good", []),
    } | {"ok/0.png": ("train", "good", [])}
    defaults = found(root, normal_dir="ok", categories=["b"])
    assert defaults["test/hole/2.png"] == ("test", "hole", [])
    assert defaults["test/good/1.png"] == ("test", "good", [])


def test_normal_images_right_in_the_category(tree):
    root = tree("part/0.png", "part/1.png", "part/ng/2.png", "part/masks/2.png")
    options = {"normal_dir": ".", "abnormal_dir": "ng", "mask_dir": "masks"}
    assert found(root, **options) == {
        "0.png": ("train", "good", []),
        "1.png": ("train", "good", []),
        "ng/2.png": ("test", "ng", ["masks/2.png"]),
    }


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("ng/0.png", ["masks/0.png"]),
        ("ng/0.png", ["masks/0_mask.bmp"]),
        ("ng/0.png", ["masks/ng/0_mask.PNG"]),
        ("ng/0.png", ["masks/0/000.png", "masks/0/001.png"]),
        ("ng/cut/0.png", ["masks/cut/0.png"]),
        ("ng/cut/0.png", ["masks/ng/cut/0_mask.png"]),
        ("ng/cut/0.png", ["masks/cut/0/000.png", "masks/cut/0/001.png"]),
        ("ng/cut/deep/0.jpg", ["masks/cut/deep/0.png"]),
        ("ng/cut/0.png", ["masks/0.png"]),
    ],
)
def test_names_of_masks(tree, image, masks):
    root = tree("part/ok/0.png", *(f"part/{name}" for name in (image, *masks)))
    options = {"normal_dir": "ok", "abnormal_dir": "ng", "mask_dir": "masks"}
    assert found(root, **options)[image][2] == masks
    assert not [m for m in notes(root, **options).values() if "mask" in m]


def test_a_mask_is_the_union_of_its_files(tree, tmp_path):
    import numpy as np
    from PIL import Image

    root = tree("part/train/good/0.png", "part/test/cut/0.png")
    folder = root / "part/ground_truth/cut/0"
    folder.mkdir(parents=True)
    parts = np.zeros((2, 16, 16), np.uint8)
    parts[0, :3], parts[1, :, 5:7] = 255, 255
    for name, part in zip(("000.png", "001.png"), parts, strict=True):
        Image.fromarray(part).save(folder / name)
    for options in ({}, {"mask_dir": "Ground_Truth"}):
        data = open_dataset("folder", root, **options)
        (sample,) = (s for s in data.samples if s.is_anomaly)
        assert (data.mask(sample) == parts.any(0)).all()


def test_the_names_of_the_defaults_read_what_is_below_them(tree):
    root = tree("part/train/good/0.png", "part/test/cut/deep/0.png")
    read = found(root, abnormal_dir="test")
    assert read["test/cut/deep/0.png"] == ("test", "cut/deep", [])


def test_a_flat_mask_is_of_one_image(tree):
    root = tree(
        "part/ok/0.png", "part/ng/a/0.png", "part/ng/b/0.png", "part/mask/0.png"
    )
    options = {"normal_dir": "ok", "abnormal_dir": "ng", "mask_dir": "mask"}
    read = found(root, **options)
    assert read["ng/a/0.png"][2] == read["ng/b/0.png"][2] == []
    data = open_dataset("folder", root, **options)
    messages = [note.message for note in data.notes]
    assert messages[0].startswith("no mask in it for 2 anomalous images, such as")
    assert messages[1] == "ignored: 1 mask without an image, such as 0.png"


def only_error(root, **options):
    with pytest.raises((DatasetError, RecipeError)) as caught:
        open_dataset("folder", root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_leave_open_which_is_meant(tree):
    root = tree(
        *("part/ok/0.png", "part/ng/cut/0.png", "part/mask/cut/0.png"),
        "part/mask/cut/0.bmp",
    )
    options = {"normal_dir": "ok", "abnormal_dir": "ng", "mask_dir": "mask"}
    assert "0.png: same name as 0.bmp; remove" in only_error(root, **options)
    (root / "part/mask/cut/0.bmp").unlink()
    tree("part/bad/cut/0.png")
    message = only_error(root, **{**options, "abnormal_dir": ["ng", "bad"]})
    assert "is another image's too; rename one" in message


def test_broken_and_turning_links(tree):
    root = tree("part/ok/0.png", "part/ng/0.png")
    (root / "part/ok/loop").symlink_to(root / "part")
    options = {"normal_dir": "ok", "abnormal_dir": "ng"}
    assert len(found(root, **options)) == 2
    (root / "part/ok/1.png").symlink_to(root / "nowhere.png")
    assert "1.png: link to a file that is not there" in only_error(root, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"normal_dir": "fine"}, "no category found; expected <category>/fine, <cat"),
        ({"normal_dir": ["okay", "fine"]}, "no category found; expected <category>/ok"),
        ({"normal_dir": "/ok"}, "normal_dir '/ok': expected a folder inside every"),
        ({"mask_dir": "../masks"}, "mask_dir '../masks': expected a folder inside"),
        ({"normal_dir": ""}, "normal_dir '': expected a folder inside"),
        ({"normal_dir": []}, "normal_dir: expected at least one folder"),
        ({"normal_dir": 3}, "normal_dir should be a valid string, got 3"),
        ({"normal_split_ratio": 1}, "normal_split_ratio should be less than 1, got 1"),
        ({"normal_split": 0.2}, "no option 'normal_split' .did you mean 'normal_sp"),
        ({"normal_dir": "ok", "abnormal_dir": "ok"}, "normal_dir and abnormal_dir: ex"),
        ({"normal_dir": "NG"}, "which folder is 'NG', Ng and ng. Name it as it is spe"),
        (
            {"normal_dir": "ok", "normal_test_dir": "ng", "abnormal_dir": "bad"},
            "'good'",
        ),
    ],
)
def test_wrong_options(tree, options, words):
    root = tree("part/ok/0.png", "part/ng/0.png", "part/bad/good/1.png")
    if options.get("normal_dir") == "NG":
        tree("part/Ng/0.png")
    with pytest.raises((DatasetError, RecipeError), match=words):
        open_dataset("folder", root, **options)
    only_error(root, **options)


def test_one_category_and_other_folders(tree):
    root = tree("part/ok/0.png", "part/ng/0.png", "docs/0.png", "0.png")
    options = {"normal_dir": "ok", "abnormal_dir": "ng"}
    message = only_error(root / "part", **options)
    assert "this is one category; give the folder above: <category>/ok" in message
    assert notes(root, **options)["docs"] == "ignored: no ok in it; 1 image in it"
    assert "unknown category 'docs'" in only_error(root, categories=["docs"], **options)
    (root / "part/ok/0.png").unlink()
    assert "part/ok: no training image" in only_error(root, **options)


def test_held_out_images():
    names = [f"{n}.png" for n in range(100)]
    some = held_out(names, 0.2, seed=1)
    assert len(some) == 20
    assert some == held_out(names[::-1], 0.2, seed=1) != held_out(names, 0.2, seed=2)
    # further images change little
    assert len(some & held_out([*names, "a.png", "b.png"], 0.2, seed=1)) >= 18
    assert held_out(names, 0.0, seed=0) == held_out(["0"], 0.5, seed=0) == set()
    assert len(held_out(names[:2], 0.01, seed=0)) == 1
    assert len(held_out(names[:2], 0.99, seed=0)) == 1
