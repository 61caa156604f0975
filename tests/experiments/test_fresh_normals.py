"""Thresholds taken from normals that a run has never seen."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.errors import AvalancheADError
from avalanche_ad.experiments.fresh_normals import calibrate_run
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
    assert "its flow was trained on" in caplog.text
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
        assert line["threshold"] == row.after
        assert line["false_alarms"]["trained_on"] is False
        assert line["false_alarms"]["expected"] == round(row.alarms.expected, 4)
    assert not any(line["anomalous"] for line in after if len(found) == 1)


def test_other_categories_keep_theirs(copy, normals):
    before = json.loads((copy / "model.json").read_text())
    rows, _ = calibrate_run(copy, normals)
    after = json.loads((copy / "model.json").read_text())
    found = {row.category for row in rows}
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
