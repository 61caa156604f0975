"""What is said where masks or test images lack: once, by category."""

from __future__ import annotations

import shutil

import numpy as np

from avalanche_ad.datasets import (
    DiskData,
    Sample,
    category_digests,
    check_dataset,
    find_problems,
    open_dataset,
    write_mvtec_layout,
)
from avalanche_ad.datasets.lacking import TestCounts, lacking


def anomalies(data, category):
    return [s for s in data.samples if s.category == category and s.is_anomaly]


def notes(root, name="folder", *rest):
    problems = check_dataset(name, root, *rest)
    assert {problem.severity for problem in problems} <= {"note"}
    return [
        (problem.path.relative_to(root).as_posix(), problem.message)
        for problem in problems
    ]


def test_a_category_without_any_mask_folder_has_unknown_masks(folder_tree):
    root = folder_tree(("bolt", "gear"))
    shutil.rmtree(root / "bolt/ground_truth")
    data = open_dataset("folder", root)
    for sample in anomalies(data, "bolt"):
        assert sample.mask_paths == ()
        assert data.mask(sample) is None
    for sample in anomalies(data, "gear"):
        assert data.mask(sample).any()
    (normal,) = (
        s for s in data.samples if s.path == root / "bolt/test/good" / "000.png"
    )
    np.testing.assert_array_equal(data.mask(normal), np.zeros((16, 16), bool))
    assert notes(root) == [
        (
            "bolt",
            "no anomalous image of 'bolt' has a mask: pixel metrics are null, and left "
            "out of means",
        )
    ]


def test_single_masks_that_are_missing_are_counted_by_category(folder_tree):
    root = folder_tree(("gear",))
    (root / "gear/ground_truth/hole/000_mask.png").unlink()
    data = open_dataset("folder", root)
    assert [data.mask(s) is None for s in anomalies(data, "gear")] == [True, False]
    assert notes(root) == [
        ("gear/ground_truth/hole/000_mask.png", "mask not found"),
        (
            "gear",
            "1 of 2 anomalous images of 'gear' has no mask: left out of pixel metrics",
        ),
    ]


def test_missing_masks_take_one_line_however_many(folder_tree, image_file, mask_file):
    root = folder_tree(("gear",))
    for number in range(1, 5):
        image_file(root / f"gear/test/hole/00{number}.png")
    (_, found), (_, counted) = notes(root)
    assert found == "mask not found, like 3 others of this category"
    assert counted.startswith("4 of 6 anomalous images of 'gear' have no mask: left")


def test_masks_of_other_names_say_which_are_expected(folder_tree, image_file):
    root = folder_tree(("gear",))
    masks = root / "gear/ground_truth/hole"
    image_file(root / "gear/test/hole/001.png")
    shutil.copy(masks / "000_mask.png", masks / "1_gt.png")
    (masks / "000_mask.png").rename(masks / "0_gt.png")
    (where, ignored), (expected, missing), (_, counted) = notes(root)
    assert where == "gear/ground_truth/hole"
    assert ignored == (
        "ignored: no mask is named after its image, such as 000_mask or 000 of "
        "000.png; 2 images in it"
    )
    assert expected == "gear/ground_truth/hole/000_mask.png"
    assert missing == "mask not found, like 1 other of this category"
    assert counted.startswith("2 of 3 anomalous images of 'gear' have no mask")


def test_one_of_several_masks_missing_leaves_the_defect_unknown(
    tmp_path, image_file, mask_file
):
    image = image_file(tmp_path / "test/hole/0.png")
    there, gone = mask_file(tmp_path / "gt/0.png"), tmp_path / "gt/1.png"
    sample = Sample(image, "gear", "test", "hole", (there, gone))
    data = DiskData.open("own", [sample])
    assert data.mask(data.samples[0]) is None
    (note,) = data.notes
    assert (note.path, note.severity) == (gone, "note")


def test_official_readers_take_a_missing_mask_as_unknown(
    folder_tree, btad_tree, visa_tree, mvtec_3d_tree
):
    mvtec = folder_tree(("bottle",))
    (mvtec / "bottle/ground_truth/hole/000_mask.png").unlink()
    visa = visa_tree(["pcb1"])
    (visa / "pcb1/Data/Masks/Anomaly/000.png").unlink()
    mvtec_3d = mvtec_3d_tree(["rope"])
    shutil.rmtree(mvtec_3d / "rope/test/cut/gt")
    (btad_tree / "01/ground_truth/ko/0002.png").unlink()
    roots = {"mvtec_ad": mvtec, "visa": visa, "mvtec_3d": mvtec_3d, "btad": btad_tree}
    categories = {
        "mvtec_ad": "bottle",
        "visa": "pcb1",
        "mvtec_3d": "rope",
        "btad": "01",
    }
    for name, root in roots.items():
        data = open_dataset(name, root, [categories[name]])
        unknown = [s for s in anomalies(data, categories[name]) if not s.mask_paths]
        assert len(unknown) == 1
        assert data.mask(unknown[0]) is None
        told = [note for _, note in notes(root, name, [categories[name]])]
        assert any("no mask" in one or "has a mask" in one for one in told), name


def test_categories_without_test_images_are_for_training(folder_tree, visa_tree):
    root = folder_tree(("bolt", "gear"))
    shutil.rmtree(root / "gear/test")
    data = open_dataset("folder", root)
    assert {s.split for s in data.samples if s.category == "gear"} == {"train"}
    message = "no test image of 'gear': training and predict only, metrics are null"
    assert ("gear/train/good", message) in notes(root)

    root = visa_tree(["pcb1", "pcb2"])
    table = root / "split_csv/1cls.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(one for one in lines if "pcb2,test" not in one))
    (line,) = (note for _, note in notes(root, "visa", ["pcb2"]) if "no test" in note)
    assert line.startswith("no test image of 'pcb2'")


def test_a_run_is_told_of_all_categories_in_a_line_of_each_kind():
    counts = [
        TestCounts(name, None, normals, anomalies, unmasked)
        for name, normals, anomalies, unmasked in (
            ("a", 1, 2, 0),
            ("b", 0, 0, 0),
            ("c", 3, 4, 4),
            ("d", 3, 57, 3),
            ("e", 0, 2, 1),
            ("f", 1, 1, 1),
            ("g", 1, 0, 0),
        )
    ]
    assert list(lacking(counts)) == [
        "no test image of 'b': training and predict only, metrics are null",
        "no anomalous image of 'c', 'f' has a mask: pixel metrics are null, and left "
        "out of means",
        "3 of 57 anomalous images of 'd', 1 of 2 of 'e' have no mask: left out of "
        "pixel metrics",
    ]


class InMemory:
    """A data set that says itself which mask is not known."""

    name = "memory"
    categories = ("gear",)

    def __init__(self, path):
        self.samples = (
            Sample(path / "0", "gear", "train"),
            Sample(path / "1", "gear", "test"),
            Sample(path / "2", "gear", "test", "hole"),
            Sample(path / "3", "gear", "test", "hole"),
        )

    def image(self, sample):
        return np.full((16, 16, 3), int(sample.path.name), dtype=np.uint8)

    def mask(self, sample):
        if sample.path.name == "3":
            return None
        return np.eye(16, dtype=bool) & sample.is_anomaly

    def fingerprint(self, sample):
        return sample.path.name


def test_data_in_memory_is_counted_written_and_digested_too(tmp_path):
    data = InMemory(tmp_path)
    (note,) = find_problems(data)
    assert note.message.startswith("1 of 2 anomalous images of 'gear' has no mask")
    root = write_mvtec_layout(data, tmp_path / "out")
    assert [p.name for p in root.glob("gear/ground_truth/hole/*")] == ["000_mask.png"]
    written = open_dataset("folder", root)
    assert [written.mask(s) is None for s in anomalies(written, "gear")] == [
        False,
        True,
    ]
    before = category_digests(data)
    data.mask = lambda sample: np.eye(16, dtype=bool) & sample.is_anomaly
    assert category_digests(data) != before
