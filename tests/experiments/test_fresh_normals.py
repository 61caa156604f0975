"""Thresholds taken from normals that a run has never seen."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.datasets.disk import image_fingerprint
from avalanche_ad.errors import AvalancheADError
from avalanche_ad.experiments.fresh_normals import calibrate_run
from avalanche_ad.experiments.image_files import find_images
from avalanche_ad.experiments.prediction import predict_images


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    """Twenty new normals, of an own draw."""
    folder = tmp_path_factory.mktemp("normals")
    data = SyntheticAD(size=80, seed=9, categories=["bolt"], train_images=20)
    for number, sample in enumerate(s for s in data.samples if s.split == "train"):
        Image.fromarray(data.image(sample)).save(folder / f"{number:02d}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def copy(trained_run, tmp_path):
    return shutil.copytree(trained_run.folder, tmp_path / "run")


def test_the_threshold_is_an_order_statistic_of_the_new_scores(copy, normals, caplog):
    lines = list(predict_images(copy, normals))
    assert "its model was fitted to" in caplog.text
    assert all(line["false_alarms"]["trained_on"] for line in lines)
    rows, unread = calibrate_run(copy, normals)
    assert unread == []
    found = {row.category: row for row in rows}
    assert set(found) == {line["category"] for line in lines}
    for category, row in found.items():
        own = [line for line in lines if line["category"] == category]
        scores = sorted(line["score"] for line in own)
        assert row.before == own[0]["threshold"]
        assert row.above_before == np.mean([line["anomalous"] for line in own])
        assert row.alarms.images == len(own)
        rank = min(len(own), int(np.ceil((len(own) + 1) * 0.95)))
        assert row.after == np.nextafter(scores[rank - 1], np.inf)
    after = list(predict_images(copy, normals))
    for line, before in zip(after, lines, strict=True):
        row = found[line["category"]]
        assert line["score"] == before["score"]
        if not row.taken:
            assert line["threshold"] == before["threshold"]
            assert line["false_alarms"]["trained_on"]
            continue
        assert line["threshold"] == row.after
        assert line["false_alarms"]["trained_on"] is False
        assert line["false_alarms"]["expected"] == round(row.alarms.expected, 4)
    assert any(row.taken for row in rows)


def test_a_few_images_do_not_take_a_thresholds_place(copy, normals):
    before = (copy / "model.json").read_text()
    rows, _ = calibrate_run(copy, normals[:5])
    assert not any(row.taken for row in rows)
    assert json.loads((copy / "model.json").read_text()) == json.loads(before)


def test_images_that_a_run_was_trained_on_are_refused(copy, normals):
    path = copy / "model.json"
    description = json.loads(path.read_text())
    assert {len(one) for one in description["training_images"]["bolt"]} == {16}
    description["training_images"]["bolt"] = [image_fingerprint(normals[3])[:16]]
    path.write_text(json.dumps(description))
    with pytest.raises(AvalancheADError, match=r"1 image of 20 .* was trained on .*03"):
        calibrate_run(copy, normals)


def test_masks_of_a_data_set_are_no_parts(normals, tmp_path, caplog):
    for place in ("test/good", "ground_truth/hole"):
        (tmp_path / "bolt" / place).mkdir(parents=True)
        shutil.copy(normals[0], tmp_path / "bolt" / place)
    found = find_images([tmp_path])
    assert [path.parent.name for path in found] == ["good"]
    assert "1 folder of masks passed over" in caplog.text


def test_other_categories_keep_theirs(copy, normals):
    before = json.loads((copy / "model.json").read_text())
    rows, _ = calibrate_run(copy, normals)
    after = json.loads((copy / "model.json").read_text())
    found = {row.category for row in rows if row.taken}
    assert after["fresh"] == sorted(found)
    assert set(before["categories"]) - found
    for category in set(before["categories"]) - found:
        assert after["held_out"][category] == before["held_out"][category]
    changed = {"held_out", "thresholds", "fresh"}
    assert {k: v for k, v in after.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }


def test_a_damaged_image_costs_no_other(copy, normals, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    rows, unread = calibrate_run(copy, [*normals[:5], bad])
    assert sum(row.alarms.images for row in rows) == 5
    assert len(unread) == 1
    assert str(bad) in unread[0]
    before = (copy / "model.json").read_bytes()
    with pytest.raises(AvalancheADError, match="none of 1 image can be read"):
        calibrate_run(copy, [bad])
    assert (copy / "model.json").read_bytes() == before


def test_the_command_prints_a_row_a_category(copy, normals, cli):
    outcome = cli("calibrate", copy, normals[0].parent)
    assert outcome.code == 0
    assert "false alarms" in outcome.out
    assert "bolt" in outcome.out or "brush" in outcome.out or "gear" in outcome.out
