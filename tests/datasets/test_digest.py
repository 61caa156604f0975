"""Digests of data sets: of what images and masks are, not of where they lie."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from avalanche_ad.datasets import SyntheticAD, category_digests, open_dataset
from avalanche_ad.datasets import digest as digest_module
from avalanche_ad.datasets.disk import DiskData
from avalanche_ad.errors import DatasetError


@pytest.fixture
def root(folder_tree):
    return folder_tree()


def now(root):
    return category_digests(open_dataset("folder", root))


def test_a_folder_that_is_moved_or_copied_keeps_its_digests(root, tmp_path):
    before = now(root)
    assert set(before) == {"bolt", "gear"}
    assert len(set(before.values())) == 2
    copied = shutil.copytree(root, tmp_path / "elsewhere" / "copy")
    assert now(copied) == before
    root.rename(tmp_path / "moved")
    assert now(tmp_path / "moved") == before
    for path in copied.rglob("*.png"):
        path.touch()
    assert now(copied) == before


def test_the_order_in_which_files_were_made_does_not_matter(root, tmp_path):
    files = sorted(root.rglob("*.png"), reverse=True)
    for path in files:
        made = tmp_path / "copy" / path.relative_to(root)
        made.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, made)
    assert now(tmp_path / "copy") == now(root)


def _image_changes(root, image_file, mask_file):
    (root / "bolt/train/good/000.png").unlink()
    image_file(root / "bolt/train/good/000.png", seed=3)


def _mask_changes(root, image_file, mask_file):
    (root / "bolt/ground_truth/hole/000_mask.png").unlink()
    mask_file(root / "bolt/ground_truth/hole/000_mask.png", value=0)


def _image_comes(root, image_file, mask_file):
    image_file(root / "bolt/train/good/009.png")


def _image_goes(root, image_file, mask_file):
    (root / "bolt/train/good/001.png").unlink()


def _split_changes(root, image_file, mask_file):
    train = root / "bolt/train/good/001.png"
    train.rename(root / "bolt/test/good/001.png")


def _defect_is_called_otherwise(root, image_file, mask_file):
    (root / "bolt/test/hole").rename(root / "bolt/test/pit")
    (root / "bolt/ground_truth/hole").rename(root / "bolt/ground_truth/pit")


@pytest.mark.parametrize(
    "change",
    [
        _image_changes,
        _mask_changes,
        _image_comes,
        _image_goes,
        _split_changes,
        _defect_is_called_otherwise,
    ],
)
def test_what_changes_a_run_changes_the_digest_of_its_category_alone(
    root, image_file, mask_file, change
):
    before = now(root)
    change(root, image_file, mask_file)
    after = now(root)
    assert after["bolt"] != before["bolt"]
    assert after["gear"] == before["gear"]


def test_categories_can_be_chosen(root):
    assert category_digests(open_dataset("folder", root), ["gear"]) == {
        "gear": now(root)["gear"]
    }


def test_fingerprints_that_are_known_are_not_made_again(root, monkeypatch):
    data = open_dataset("folder", root)
    before = category_digests(data)
    known = {sample: data.fingerprint(sample) for sample in data.samples}
    read = []

    def noted(path):
        read.append(path)
        return file_digest(path)

    file_digest = digest_module.file_digest
    monkeypatch.setattr(digest_module, "file_digest", noted)
    monkeypatch.setattr(DiskData, "fingerprint", None)
    assert category_digests(data, fingerprints=known) == before
    masks = [sample.mask_paths[0] for sample in data.samples if sample.is_anomaly]
    assert read == masks


def test_drawn_images_have_digests_of_how_they_are_drawn():
    sizes = {"train_images": 2, "test_normals": 1, "test_anomalies": 2}
    chosen = {"categories": ["bolt", "gear"], **sizes}
    before = category_digests(SyntheticAD(32, **chosen))
    assert category_digests(SyntheticAD(32, **chosen)) == before
    assert category_digests(SyntheticAD(32, seed=1, **chosen)) != before
    more = category_digests(SyntheticAD(32, **{**chosen, "test_normals": 2}))
    assert set(before.values()) & set(more.values()) == set()


def test_masks_in_memory_count_by_their_pixels(root):
    class InMemory:
        name, categories = "memory", ("bolt",)

        def __init__(self, value):
            samples = open_dataset("folder", root).samples
            self.samples = [
                dataclasses.replace(sample, mask_paths=())
                for sample in samples
                if sample.category == "bolt"
            ]
            self.value = value

        def mask(self, sample):
            return np.full((8, 8), self.value)

        def fingerprint(self, sample):
            return sample.path.name

    digests = [category_digests(InMemory(value))["bolt"] for value in (0, 1, 1)]
    assert digests[0] != digests[1]
    assert digests[1] == digests[2]


def test_a_mask_that_cannot_be_read_is_told(root, monkeypatch):
    data = open_dataset("folder", root)
    known = {sample: data.fingerprint(sample) for sample in data.samples}

    def unreadable(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", unreadable)
    with pytest.raises(DatasetError, match="mask"):
        category_digests(data, fingerprints=known)
