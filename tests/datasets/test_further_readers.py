"""The quirks of MVTec AD 2, MVTec LOCO AD, Real-IAD and KolektorSDD 1 and 2."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets import check_dataset, open_dataset
from avalanche_ad.datasets.readers.mvtec_loco import saturation_of
from avalanche_ad.datasets.readers.real_iad import REAL_IAD_CATEGORIES
from avalanche_ad.datasets.regions import RegionData
from avalanche_ad.errors import DatasetError


def sizes(data):
    return Counter((s.split, s.is_anomaly) for s in data.samples)


def told(name, root, severity, **options):
    found = check_dataset(name, root, **options)
    return [str(one) for one in found if one.severity == severity]


def test_mvtec_ad_2_reads_the_public_test_images_alone(mvtec_ad_2_tree):
    root = mvtec_ad_2_tree(["can"])
    data = open_dataset("mvtec_ad_2", root, ["can"])
    assert sizes(data) == {
        ("train", False): 1,
        ("test", False): 2,
        ("test", True): 1,
    }
    (bad,) = (sample for sample in data.samples if sample.is_anomaly)
    mask = root / "can/test_public/ground_truth/bad/000_regular_mask.png"
    assert (bad.defect_type, bad.mask_paths) == ("bad", (mask,))
    assert not data.notes
    mask.rename(mask.with_name("999_mask.png"))
    lost = open_dataset("mvtec_ad_2", root, ["can"])
    (bad,) = (sample for sample in lost.samples if sample.is_anomaly)
    assert bad.mask_paths == ()
    notes = told("mvtec_ad_2", root, "note", categories=["can"])
    assert any("no anomalous image of 'can' has a mask" in note for note in notes)


def test_mvtec_ad_2_masks_of_no_test_folder_are_noted(mvtec_ad_2_tree, mask_file):
    root = mvtec_ad_2_tree(["can"])
    mask_file(root / "can/test_public/ground_truth/dent/000_mask.png")
    (note,) = open_dataset("mvtec_ad_2", root, ["can"]).notes
    assert "masks without a folder of this name in test_public" in note.message


@pytest.fixture
def loco(mvtec_loco_tree):
    """The root, and the image with two masks."""
    root = mvtec_loco_tree(["pushpins"])
    return root, root / "pushpins/ground_truth/logical_anomalies/000"


def opened(root):
    data = open_dataset("mvtec_loco", root, ["pushpins"])
    by_type = {sample.defect_type: sample for sample in data.samples}
    return data, by_type


def test_loco_unites_the_masks_of_an_image(loco):
    root, masks = loco
    data, by_type = opened(root)
    logical = by_type["logical_anomalies"]
    assert logical.mask_paths == (masks / "000.png", masks / "001.png")
    expected = np.zeros((16, 16), dtype=bool)
    expected[2:6, 3:8] = expected[4:12, 5:10] = True
    np.testing.assert_array_equal(data.mask(logical), expected)
    assert sizes(data)["train", False] == 1  # validation is in neither split
    assert not data.notes


def test_loco_knows_how_much_of_each_defect_must_be_found(loco):
    data, by_type = opened(loco[0])
    assert isinstance(data, RegionData)
    assert data.regions(by_type["good"]) == []
    missing, additional = data.regions(by_type["logical_anomalies"])
    assert (missing.mask.sum(), missing.saturation) == (20, 5 / 20)
    assert (additional.mask.sum(), additional.saturation) == (40, 20 / 40)
    (scratch,) = data.regions(by_type["structural_anomalies"])
    assert (scratch.saturation, scratch.kind) == (1.0, "structural_anomalies")
    small = missing.resized(8)
    assert (small.mask.shape, small.saturation) == ((8, 8), 5 / 20)


@pytest.mark.parametrize(
    ("area", "threshold", "relative", "pixels"),
    [
        (100, 1.0, True, 100),
        (101, 0.5, True, 50),  # rounded down, as the publisher's code does
        (100, 30, False, 30),
        (20, 30, False, 20),  # no more than there is
        (1, 0.5, True, 1),
    ],
)
def test_saturation(area, threshold, relative, pixels):
    share = saturation_of(area, threshold, relative=relative)
    assert share * area == pytest.approx(pixels)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        ("{", "not JSON"),
        ("{}", "at the top: Input should be a valid list"),
        ('[{"pixel_value": 300}]', "at 0.pixel_value: Input should be less than"),
    ],
)
def test_loco_with_a_broken_config(loco, content, words):
    root, _ = loco
    path = root / "pushpins/defects_config.json"
    opened(root)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    (error,) = set(told("mvtec_loco", root, "error", categories=["pushpins"])[:1])
    assert error.startswith(f"{path}: {words}")
    with pytest.raises(DatasetError, match=words):
        opened(root)


@pytest.mark.parametrize("value", [200, (254, 255)])
def test_loco_mask_of_a_value_that_the_config_lacks(loco, value):
    root, masks = loco
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[2:4, :2] = value
    Image.fromarray(pixels).save(masks / "000.png")
    (error,) = told("mvtec_loco", root, "error", categories=["pushpins"])
    shown = "200" if value == 200 else "254, 255"
    expected = f"one value besides 0, of defects_config.json, found {shown}"
    assert error == f"{masks / '000.png'}: expected {expected}"


def test_loco_image_without_masks(loco):
    root, masks = loco
    masks.rename(masks.with_name("009"))
    notes = told("mvtec_loco", root, "note", categories=["pushpins"])
    assert any("ignored: masks without an image; 2 images in it" in n for n in notes)
    assert any("1 of 2 anomalous images of 'pushpins' has no mask" in n for n in notes)


def test_kolektor_splits_normal_images_by_item(kolektor_sdd_tree):
    data = open_dataset("kolektor_sdd", kolektor_sdd_tree)
    assert data.categories == ("commutator",)
    where = {(s.path.parent.name, s.split) for s in data.samples if not s.is_anomaly}
    assert where == {
        ("kos01", "train"),
        ("kos02", "train"),
        ("kos05", "test"),
        ("kos10", "test"),
    }
    bad = [s for s in data.samples if s.is_anomaly]
    assert {s.path.name for s in bad} == {"Part1.jpg"}
    assert {s.split for s in bad} == {"test"}
    assert bad[0].mask_paths == (kolektor_sdd_tree / "kos01/Part1_label.bmp",)


def test_kolektor_says_what_is_wrong(kolektor_sdd_tree, image_file):
    root = kolektor_sdd_tree
    (root / "kos01/Part0_label.bmp").unlink()
    (root / "kos02/Part2_label.bmp").write_bytes(b"")
    image_file(root / "more/0.png")
    image_file(root / "kos02/Part9_label.bmp")
    first, second = told("kolektor_sdd", root, "error")
    assert first == (
        f"{root / 'kos01/Part0.jpg'}: image without label; expected "
        f"{root / 'kos01/Part0_label.bmp'}"
    )
    assert second.startswith(f"{root / 'kos02/Part2_label.bmp'}: not an image")
    notes = " ".join(told("kolektor_sdd", root, "note"))
    assert "more: ignored: no item" in notes
    assert "Part9_label.bmp: ignored: label without an image" in notes


def test_kolektor_of_training_items_alone(kolektor_sdd_tree):
    for name in ("kos01", "kos02"):
        (kolektor_sdd_tree / name).rename(kolektor_sdd_tree / f"{name}_")
    with pytest.raises(DatasetError, match="no train image of the 2 items"):
        open_dataset("kolektor_sdd", kolektor_sdd_tree)


def test_kolektor_2_leaves_anomalous_training_images_out(kolektor_sdd2_tree):
    data = open_dataset("kolektor_sdd2", kolektor_sdd2_tree)
    assert sizes(data) == {
        ("train", False): 2,
        ("test", False): 1,
        ("test", True): 1,
    }
    (note,) = data.notes
    assert note.files == 1
    assert "1 anomalous image in it" in note.message
    assert note.path == kolektor_sdd2_tree / "train"


def test_real_iad_has_30_categories():
    assert len(REAL_IAD_CATEGORIES) == len(set(REAL_IAD_CATEGORIES)) == 30
    assert list(REAL_IAD_CATEGORIES) == sorted(REAL_IAD_CATEGORIES)


@pytest.fixture
def usb(real_iad_tree):
    """The root, and its one table."""
    root = real_iad_tree(["usb"])
    return root, root / "realiad_jsons/realiad_jsons/usb.json"


def change(path, edit):
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))


def test_real_iad_follows_the_table(usb):
    root, _ = usb
    data = open_dataset("real_iad", root, ["usb"])
    (bad,) = (sample for sample in data.samples if sample.is_anomaly)
    assert bad.defect_type == "AK"
    folder = root / "realiad_256/usb/NG/AK/S0001"
    assert bad.path == folder / "usb_0001_AK_bad_C1.jpg"
    assert bad.mask_paths == (folder / "usb_0001_AK_bad_C1.png",)


def test_real_iad_takes_other_images_and_tables(usb):
    root, table = usb
    (root / "realiad_256").rename(root / "realiad_1024")
    table.parent.rename(root / "realiad_jsons_sv")
    options = {"images": "realiad_1024", "tables": "realiad_jsons_sv"}
    assert len(open_dataset("real_iad", root, ["usb"], **options).samples) == 4
    first, second = told("real_iad", root, "error", categories=["usb"])
    there = "there are realiad_1024, realiad_jsons, realiad_jsons_sv"
    assert first.startswith(f"{root / 'realiad_256'}: folder of the images not found;")
    assert first.endswith(there)
    assert "folder of the tables not found" in second


def test_real_iad_mask_that_is_null_is_unknown(usb):
    root, table = usb
    change(table, lambda found: found["test"][1].update(mask_path=None))
    data = open_dataset("real_iad", root, ["usb"])
    (bad,) = (sample for sample in data.samples if sample.is_anomaly)
    assert bad.mask_paths == ()


def test_real_iad_with_anomalous_images_in_training(usb):
    root, table = usb

    def mix(found):
        found["train"].append(found["test"].pop())

    change(table, mix)
    with pytest.raises(DatasetError, match=r"train\[2\]: anomalous image NG/AK/.* in"):
        open_dataset("real_iad", root, ["usb"])
    name = "realiad_jsons_fuiad_0.4"
    table.parent.rename(table.parent.with_name(name))
    data = open_dataset("real_iad", root, ["usb"], tables=name)
    assert sizes(data) == {("train", False): 3, ("test", False): 1}
    (note,) = data.notes
    assert note.message == "1 anomalous image among the 3 for training"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop("meta"), "expected an object at the key 'meta'"),
        (lambda t: t.update(test=0), "expected a list at the key 'test'"),
        (lambda t: t.update(train=[]), "names no train image"),
        (lambda t: t["test"].append(3), r"test\[2\]: expected an object, found 3"),
        (lambda t: t["test"][0].pop("image_path"), r"test\[0\]: expected a text at th"),
        (lambda t: t["test"].append(t["train"][0]), "is named twice"),
        (lambda t: t["test"][0].update(image_path="x.jpg"), "named in usb.json not fo"),
        (lambda t: t["meta"].update(prefix="plug"), "folder of category 'usb' not"),
    ],
)
def test_real_iad_table_with_a_mistake(usb, edit, words):
    root, table = usb
    change(table, edit)
    with pytest.raises(DatasetError, match=words):
        open_dataset("real_iad", root, ["usb"])


def test_real_iad_table_that_is_no_json(usb):
    root, table = usb
    table.write_text("{")
    with pytest.raises(DatasetError, match="usb.json: the official split is not JSON"):
        open_dataset("real_iad", root, ["usb"])
