"""What every reader promises, over all layouts, and each one's own quirks."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from avalanche_ad.datasets import (
    AnomalyData,
    DiskData,
    Sample,
    open_dataset,
)
from avalanche_ad.datasets.readers.mpdd import MPDD_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_3d import MVTEC_3D_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_ad import MVTEC_AD_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_ad_2 import MVTEC_AD_2_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_loco import MVTEC_LOCO_CATEGORIES
from avalanche_ad.datasets.readers.real_iad import REAL_IAD_CATEGORIES
from avalanche_ad.datasets.readers.visa import VISA_CATEGORIES
from avalanche_ad.errors import DatasetError

READERS = (
    *("folder", "mvtec_ad", "visa", "btad", "mvtec_3d"),
    *("mpdd", "mvtec_ad_2", "mvtec_loco", "real_iad"),
    *("kolektor_sdd", "kolektor_sdd2"),
)
MISSPELT = {
    "folder": ("gaer", "gear"),
    "mvtec_ad": ("botle", "bottle"),
    "visa": ("cashews", "cashew"),
    "btad": ("1", "01"),
    "mvtec_3d": ("carot", "carrot"),
    "mpdd": ("tube", "tubes"),
    "mvtec_ad_2": ("walnut", "walnuts"),
    "mvtec_loco": ("pushpin", "pushpins"),
    "real_iad": ("woodstik", "woodstick"),
    "kolektor_sdd": ("commutators", "commutator"),
    "kolektor_sdd2": ("surfaces", "surface"),
}


OFFICIAL = {
    "mvtec_ad": MVTEC_AD_CATEGORIES,
    "visa": VISA_CATEGORIES,
    "mvtec_3d": MVTEC_3D_CATEGORIES,
    "mpdd": MPDD_CATEGORIES,
    "mvtec_ad_2": MVTEC_AD_2_CATEGORIES,
    "mvtec_loco": MVTEC_LOCO_CATEGORIES,
    "real_iad": REAL_IAD_CATEGORIES,
}


def tree_of(request, name, categories=None):
    """Write the tree of a reader, of all its categories or of some."""
    like_folder = name in ("mvtec_ad", "mpdd")
    tree = request.getfixturevalue("folder_tree" if like_folder else f"{name}_tree")
    if isinstance(tree, Path):
        return tree
    categories = categories or OFFICIAL.get(name)
    return tree(categories) if categories else tree()


@pytest.fixture(params=READERS)
def case(request):
    """A reader's name and a complete tree for it."""
    return request.param, tree_of(request, request.param)


def only_error(*arguments) -> str:
    with pytest.raises(DatasetError) as caught:
        open_dataset(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_reader_gives_sound_data(case):
    name, root = case
    data = open_dataset(name, root)
    assert isinstance(data, AnomalyData)
    assert data.name == name
    for category in data.categories:
        own = [sample for sample in data.samples if sample.category == category]
        train = [sample for sample in own if sample.split == "train"]
        assert train
        assert not any(sample.is_anomaly for sample in train)
        assert {sample.is_anomaly for sample in own if sample.split == "test"} == {
            False,
            True,
        }
    for sample in data.samples:
        image, mask = data.image(sample), data.mask(sample)
        assert image.shape == (*mask.shape, 3)
        assert mask.any() == sample.is_anomaly
        assert sample.is_anomaly == bool(sample.mask_paths)
    digests = {data.fingerprint(sample) for sample in data.samples}
    assert len(digests) == len(data.samples)


def test_samples_come_in_the_order_promised(case):
    name, root = case
    data = open_dataset(name, root)
    keys = [
        (
            data.categories.index(sample.category),
            sample.split,
            sample.defect_type,
            str(sample.path),
        )
        for sample in data.samples
    ]
    assert keys == sorted(keys)
    assert data.samples == open_dataset(name, str(root)).samples


def test_selection_keeps_the_order_of_the_data_set(case):
    name, root = case
    data = open_dataset(name, root)
    chosen = open_dataset(name, root, data.categories[1::-1])
    assert chosen.categories == data.categories[:2]
    one = open_dataset(name, root, data.categories[-1])
    assert one.categories == data.categories[-1:]


def test_data_is_light_to_pickle(case):
    name, root = case
    data = open_dataset(name, root)
    data.image(data.samples[0])
    packed = pickle.dumps(data)
    assert len(packed) < 400 * len(data.samples) + 1000
    assert pickle.loads(packed) == data


def test_missing_root(case, tmp_path):
    name, _ = case
    message = only_error(name, tmp_path / "nowhere")
    assert message.startswith(f"{tmp_path / 'nowhere'}: folder not found; expected ")


def test_root_that_is_a_file(case, tmp_path):
    name, _ = case
    (tmp_path / "set.zip").write_bytes(b"PK")
    assert "not a folder; unpack it" in only_error(name, tmp_path / "set.zip")


def test_empty_root(case, tmp_path):
    name, _ = case
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in only_error(name, tmp_path / "empty")


def test_unknown_category_names_the_closest(case):
    name, root = case
    misspelt, meant = MISSPELT[name]
    message = only_error(name, root, [misspelt])
    assert f"unknown category '{misspelt}'; did you mean '{meant}'? Known: " in message


def test_no_category_asked_for(case):
    name, root = case
    assert "name at least one" in only_error(name, root, [])


@pytest.mark.parametrize("name", ["btad", *OFFICIAL])
def test_missing_category_folder(request, name):
    root = tree_of(request, name)
    place = root / "realiad_256" if name == "real_iad" else root
    missing = place / {"btad": ("02",), **OFFICIAL}[name][0]
    missing.rename(root / "moved")
    message = only_error(name, root)
    assert message.startswith(f"{missing}: folder of category '{missing.name}' not ")
    assert "name the categories to use" in message


def test_wrong_folder_says_what_was_found(folder_tree):
    root = folder_tree(("gear", "bolt"))
    message = only_error("mvtec_ad", root)
    assert "no category found; expected one folder per category: bottle" in message
    assert message.endswith("found bolt, gear")


def test_folder_takes_every_extension_in_either_case(folder_tree, image_file):
    root = folder_tree(("gear",))
    suffixes = ["jpg", "JPG", "jpeg", "bmp", "BMP", "tif", "TIFF", "webp", "PNG"]
    for number, suffix in enumerate(suffixes):
        image_file(root / "gear/train/good" / f"x{number}.{suffix}")
    (root / "gear/train/good/Thumbs.db").write_bytes(b"")
    (root / "gear/train/good/._000.png").write_bytes(b"")
    (root / "gear/train/good/notes.txt").write_bytes(b"")
    train = [s for s in open_dataset("folder", root).samples if s.split == "train"]
    assert len(train) == 2 + len(suffixes)


def test_folder_takes_a_mask_named_like_its_image(folder_tree):
    root = folder_tree(("gear",))
    mask = root / "gear/ground_truth/hole/000_mask.png"
    mask.rename(mask.with_name("000.png"))
    found = [
        s.mask_paths[0]
        for s in open_dataset("folder", root).samples
        if s.defect_type == "hole"
    ]
    assert found == [mask.with_name("000.png")]


def test_folder_that_is_one_category(folder_tree):
    root = folder_tree() / "gear"
    assert "this is one category; give the folder above" in only_error("folder", root)


def test_folder_passes_over_what_is_no_category(folder_tree):
    root = folder_tree()
    (root / "license").mkdir()
    (root / "readme.txt").write_text("…", encoding="utf-8")
    assert open_dataset("folder", root).categories == ("bolt", "gear")


@pytest.mark.parametrize("place", ["train/good", "test/hole", "ground_truth/hole"])
def test_duplicate_names(folder_tree, image_file, place):
    root = folder_tree()
    twin = next((root / "bolt" / place).iterdir())
    image_file(twin.with_suffix(".jpg"))
    message = only_error("folder", root)
    assert f"same name as {twin.stem}.jpg; remove or rename" in message


def test_empty_train(folder_tree):
    root = folder_tree()
    for path in (root / "bolt/train/good").iterdir():
        path.unlink()
    expected = f"{root / 'bolt/train/good'}: no training image; expected files (.bmp"
    assert only_error("folder", root).startswith(expected)


def test_folder_that_may_not_be_read(folder_tree, monkeypatch):
    root = folder_tree()
    closed = root / "bolt/test/hole"
    allowed = Path.iterdir

    def iterdir(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return allowed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    message = only_error("folder", root)
    assert message.startswith(f"{closed}: cannot be read: Permission denied")


def test_btad_masks_keep_their_own_extension(btad_tree):
    masks = [
        s.mask_paths[0].name
        for s in open_dataset("btad", btad_tree).samples
        if s.is_anomaly
    ]
    assert masks == ["0002.png", "0002.png", "0002.bmp"]


def test_mvtec_3d_leaves_validation_and_normal_masks_alone(mvtec_3d_tree):
    samples = open_dataset("mvtec_3d", mvtec_3d_tree(["rope"]), ["rope"]).samples
    assert [sample.defect_type for sample in samples] == ["cut", "good", "good"]
    assert all(sample.path.parent.name == "rgb" for sample in samples)


def test_visa_masks_count_every_value(visa_tree):
    data = open_dataset("visa", visa_tree(["pcb1"]), ["pcb1"])
    (anomaly,) = (sample for sample in data.samples if sample.is_anomaly)
    assert data.mask(anomaly).sum() == 20


def test_visa_finds_the_mask_that_the_table_leaves_out(visa_tree):
    root = visa_tree(["pcb1"])
    table = root / "split_csv/1cls.csv"
    mask = "pcb1/Data/Masks/Anomaly/000.png"
    table.write_text(table.read_text().replace(mask, ""))
    (anomaly,) = (
        s for s in open_dataset("visa", root, ["pcb1"]).samples if s.is_anomaly
    )
    assert anomaly.mask_paths == (root / mask,)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("object,", "thing,", "no column object; expected object,split,label"),
        ("pcb1,train", "pcb9,train", "line 3: unknown object 'pcb9'"),
        ("pcb1,train", "pcb1,dev", "line 3: expected split train or test, found 'dev'"),
        ("train,normal", "train,ok", "line 3: expected label normal or anomaly"),
        ("train,normal", "train,anomaly", "line 3: anomalous image .* in the train"),
        ("0001.JPG", "0002.JPG", "line 4: .*0002.JPG is named twice"),
        ("0001.JPG", "0009.JPG", "0009.JPG: image named in .*1cls.csv not found"),
        ("pcb1/Data/Images/Normal/0001.JPG", "", "line 3: names no image"),
        ("pcb1,test", "pcb1,train", "line 5: anomalous image"),
        ("normal", "normal\x00", "line 2: expected label|not a CSV table"),
    ],
)
def test_visa_table_with_a_mistake(visa_tree, old, new, expected):
    root = visa_tree(["pcb1"])
    table = root / "split_csv/1cls.csv"
    table.write_text(table.read_text().replace(old, new))
    message = only_error("visa", root, ["pcb1"])
    assert message.startswith(str(root))
    with pytest.raises(DatasetError, match=expected):
        open_dataset("visa", root, ["pcb1"])


def test_visa_without_a_readable_table(visa_tree):
    root = visa_tree(["pcb1"])
    table = root / "split_csv/1cls.csv"
    content = table.read_bytes()
    table.write_bytes(b"\xff\xfe\x00" + content)
    assert "cannot be read: not a CSV table" in only_error("visa", root)
    table.write_bytes(b"\xef\xbb\xbf" + content)
    assert open_dataset("visa", root, ["pcb1"]).categories == ("pcb1",)
    table.unlink()
    assert "cannot be read: No such file" in only_error("visa", root)


def test_visa_category_without_rows(visa_tree):
    root = visa_tree(["pcb1"])
    (root / "pcb2").mkdir()
    message = only_error("visa", root, ["pcb2"])
    assert "1cls.csv: names no train image of 'pcb2'" in message


def test_mask_of_an_anomalous_sample_that_names_none(tmp_path, image_file):
    path = image_file(tmp_path / "000.png")
    data = DiskData("own", (Sample(path, "gear", "test", "hole"),))
    assert data.mask(data.samples[0]) is None
    np.testing.assert_array_equal(
        data.mask(Sample(path, "gear", "test")), np.zeros((16, 16), dtype=np.bool_)
    )
