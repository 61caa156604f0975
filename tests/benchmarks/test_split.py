import csv
import json

import pytest

from avalanche_ad.benchmarks import (
    SplitBTAD,
    SplitFolder,
    SplitMPDD,
    SplitMVTec3D,
    SplitMVTecAD,
    SplitMVTecAD2,
    SplitMVTecLOCO,
    SplitRealIAD,
    SplitSyntheticAD,
    SplitVisA,
)
from avalanche_ad.datasets.readers.mpdd import MPDD_CATEGORIES as MPDD
from avalanche_ad.datasets.readers.mvtec_3d import MVTEC_3D_CATEGORIES as MVTEC_3D
from avalanche_ad.datasets.readers.mvtec_ad import MVTEC_AD_CATEGORIES as MVTEC_AD
from avalanche_ad.datasets.readers.mvtec_ad_2 import (
    MVTEC_AD_2_CATEGORIES as MVTEC_AD_2,
)
from avalanche_ad.datasets.readers.visa import VISA_CATEGORIES as VISA
from avalanche_ad.errors import DatasetError

SIZES = {"image_size": 16, "mask_size": 16}


@pytest.fixture
def mvtec_tree(tmp_path, image_file, mask_file):
    def write(categories):
        for category in categories:
            for name in ("train/good/000", "test/good/000", "test/cut/000"):
                image_file(tmp_path / category / f"{name}.png")
            mask_file(tmp_path / category / "ground_truth/cut/000_mask.png")
        return tmp_path

    return write


def check(benchmark, sizes, names=None):
    assert [len(names) for names in benchmark.experiences] == sizes
    if names is not None:
        assert benchmark.category_names == tuple(names)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == len(sizes)
    for stream in (benchmark.train_stream, benchmark.test_stream):
        assert [len(e.classes_in_this_experience) for e in stream] == sizes
    defects = [e.dataset.defect_type for e in benchmark.test_stream]
    assert all(len(set(kinds)) > 1 for kinds in defects)
    for experience in benchmark.test_stream:
        for item in experience.dataset:
            assert bool(item[3].any()) == bool(item[2])
            assert item[0].shape == (3, 16, 16)


def test_mvtec_ad(mvtec_tree):
    root = mvtec_tree(MVTEC_AD)
    check(SplitMVTecAD(4, dataset_root=root, **SIZES), [4, 4, 4, 3], MVTEC_AD)
    tens = SplitMVTecAD(
        dataset_root=str(root), classes_per_experience=[10, 5], seed=1, **SIZES
    )
    assert tens.category_names != MVTEC_AD
    check(tens, [10, 5])


def test_folder(mvtec_tree):
    root = mvtec_tree(["nut", "axle", "cog"])
    check(SplitFolder(2, dataset_root=root, **SIZES), [2, 1], ["axle", "cog", "nut"])
    labelled = SplitFolder(3, dataset_root=root, return_task_id=True, **SIZES)
    assert [e.task_label for e in labelled.train_stream] == [0, 1, 2]


def test_visa(tmp_path, image_file, mask_file):
    rows = [("object", "split", "label", "image", "mask")]
    for category in VISA:
        for name, split in (("0", "train"), ("1", "test")):
            image = f"{category}/Data/Images/Normal/{name}.JPG"
            image_file(tmp_path / image)
            rows.append((category, split, "normal", image, ""))
        image = f"{category}/Data/Images/Anomaly/0.JPG"
        mask = f"{category}/Data/Masks/Anomaly/0.png"
        image_file(tmp_path / image)
        mask_file(tmp_path / mask)
        rows.append((category, "test", "anomaly", image, mask))
    (tmp_path / "split_csv").mkdir()
    with (tmp_path / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    check(SplitVisA(3, dataset_root=tmp_path, **SIZES), [4, 4, 4], VISA)


def test_btad(tmp_path, image_file, mask_file):
    for category, image, mask in (
        ("01", "bmp", "png"),
        ("02", "png", "png"),
        ("03", "bmp", "bmp"),
    ):
        for name in ("train/ok/0", "test/ok/1", "test/ko/2"):
            image_file(tmp_path / category / f"{name}.{image}")
        mask_file(tmp_path / category / f"ground_truth/ko/2.{mask}")
    check(SplitBTAD(3, dataset_root=tmp_path, **SIZES), [1, 1, 1], ["01", "02", "03"])


def test_mvtec_3d(tmp_path, image_file, mask_file):
    for category in MVTEC_3D:
        for folder in ("train/good", "validation/good", "test/good", "test/cut"):
            image_file(tmp_path / category / folder / "rgb/000.png")
            (tmp_path / category / folder / "xyz").mkdir()
            (tmp_path / category / folder / "xyz/000.tiff").write_bytes(b"unread")
            gt = tmp_path / category / folder / "gt/000.png"
            if folder == "test/cut":
                mask_file(gt)
    check(SplitMVTec3D(4, dataset_root=tmp_path, **SIZES), [3, 3, 2, 2], MVTEC_3D)


def test_mpdd(mvtec_tree):
    check(SplitMPDD(2, dataset_root=mvtec_tree(MPDD), **SIZES), [3, 3], MPDD)


def test_mvtec_ad_2(tmp_path, image_file, mask_file):
    for category in MVTEC_AD_2:
        base = tmp_path / category
        for name in ("train/good/0", "test_public/good/0", "test_public/bad/0"):
            image_file(base / f"{name}.png")
        mask_file(base / "test_public/ground_truth/bad/0_mask.png")
    stream = SplitMVTecAD2(2, dataset_root=tmp_path, **SIZES)
    check(stream, [4, 4], MVTEC_AD_2)
    assert not stream.regions


def test_mvtec_loco(tmp_path, image_file, mask_file):
    names = ("pushpins", "screw_bag")
    defect = {"pixel_value": 255, "saturation_threshold": 5}
    defect["relative_saturation"] = False
    for category in names:
        base = tmp_path / category
        for name in ("train/good/0", "test/good/0", "test/logical_anomalies/0"):
            image_file(base / f"{name}.png")
        for number in range(2):
            mask_file(base / f"ground_truth/logical_anomalies/0/{number}.png")
        (base / "defects_config.json").write_text(json.dumps([defect]))
    stream = SplitMVTecLOCO(2, dataset_root=tmp_path, class_order=names, **SIZES)
    check(stream, [1, 1], names)
    regions = stream.regions[stream.test_stream[1].dataset.path[-1]]
    assert [(r.mask.sum(), r.saturation) for r in regions] == [(20, 0.25)] * 2


def test_real_iad(tmp_path, image_file, mask_file):
    folder = tmp_path / "realiad_512/usb"
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        image_file(folder / name)
    mask_file(folder / "2.png")
    entries = [
        {"anomaly_class": kind, "image_path": f"{number}.jpg", "mask_path": mask}
        for number, (kind, mask) in enumerate(
            [("OK", None), ("OK", None), ("AK", "2.png")]
        )
    ]
    table = {
        "meta": {"prefix": "usb/", "normal_class": "OK"},
        "train": entries[:1],
        "test": entries[1:],
    }
    path = tmp_path / "realiad_jsons_sv/usb.json"
    path.parent.mkdir()
    path.write_text(json.dumps(table))
    stream = SplitRealIAD(
        dataset_root=tmp_path,
        images="realiad_512",
        tables="realiad_jsons_sv",
        experiences=[["usb"]],
        **SIZES,
    )
    check(stream, [1], ["usb"])


def test_synthetic():
    stream = SplitSyntheticAD(
        image_size=32,
        data_seed=3,
        experiences=[["gear"], ["bolt", "brush"]],
        backbone=None,
    )
    assert stream.image_size == stream.mask_size == 32
    assert stream.category_names == ("gear", "bolt", "brush")
    assert stream.train_stream[1].dataset[0][0].shape == (3, 32, 32)
    assert {len(e.dataset[0]) for e in stream.test_stream} == {5}


@pytest.mark.parametrize(
    "builder",
    [
        *(SplitMVTecAD, SplitVisA, SplitBTAD, SplitMVTec3D, SplitFolder),
        *(SplitMVTecLOCO, SplitMVTecAD2, SplitMPDD, SplitRealIAD),
    ],
)
def test_a_missing_root_is_told(tmp_path, builder):
    with pytest.raises(DatasetError, match="nowhere"):
        builder(2, dataset_root=tmp_path / "nowhere")


def test_categories_that_are_not_named_need_not_be_there(mvtec_tree):
    root = mvtec_tree(["bottle", "zipper"])
    by_order = SplitMVTecAD(
        2, dataset_root=root, class_order=["zipper", "bottle"], **SIZES
    )
    check(by_order, [1, 1], ["zipper", "bottle"])
    by_name = SplitMVTecAD(dataset_root=root, experiences=[["zipper"]], **SIZES)
    check(by_name, [1], ["zipper"])


def test_a_feature_stream_refuses_a_mask_of_another_size(
    mvtec_tree, mask_file, backbone, cache
):
    root = mvtec_tree(["nut"])
    mask_file(root / "nut/ground_truth/cut/000_mask.png", size=20)
    with pytest.raises(DatasetError, match="000_mask.png: mask of 20x20 pixels; exp"):
        SplitFolder(1, dataset_root=root, backbone=backbone, cache=cache, **SIZES)
