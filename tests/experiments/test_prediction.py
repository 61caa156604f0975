"""Prediction with a saved run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.errors import AvalancheADError, DatasetError, ResultsError
from avalanche_ad.experiments.prediction import find_images, predict_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    data = SyntheticAD(size=80, categories=["bolt", "gear"], train_images=1)
    for sample in data.samples[:3]:
        path = folder / sample.category / f"{sample.defect_type}_{sample.path.stem}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(data.image(sample)).save(path)
    return folder


def test_images_are_found_below_folders_in_order(images, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.JPG")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    found = find_images([tmp_path, *sorted(images.rglob("*.png"))[:1]])
    assert [path.name for path in found[:2]] == ["a.png", "b.JPG"]
    assert len(found) == 3


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no image in this folder"):
        find_images([tmp_path])


def test_every_image_gets_its_line(trained_run, images):
    files = find_images([images])
    lines = list(predict_images(trained_run.folder, files))
    assert [line["image"] for line in lines] == [str(path) for path in files]
    kept = json.loads((trained_run.folder / "model.json").read_text())["thresholds"]
    for line in lines:
        assert set(line) == {"image", "score", "category", "threshold", "anomalous"}
        assert line["threshold"] == kept["quantile"][line["category"]]
        assert line["anomalous"] == (line["score"] >= line["threshold"])
        json.dumps(line)


def test_the_other_threshold_gives_its_own_verdict(trained_run, images):
    files = find_images([images])
    kept = json.loads((trained_run.folder / "model.json").read_text())["thresholds"]
    assert set(kept["f1max"]) == set(kept["quantile"])
    for line in predict_images(trained_run.folder, files, threshold="f1max"):
        assert line["threshold"] == kept["f1max"][line["category"]]


def test_neither_batch_nor_neighbours_change_a_score(trained_run, images):
    files = find_images([images])
    together = list(predict_images(trained_run.folder, files))
    single = list(predict_images(trained_run.folder, files[::-1], batch_size=1))[::-1]
    for one, other in zip(together, single, strict=True):
        assert one["score"] == pytest.approx(other["score"], rel=1e-4)
        assert one["category"] == other["category"]


def test_prediction_scores_as_the_evaluation_did(trained_run, tiny_stream):
    """The F1-max threshold is one of the scores that the test images got."""
    data = SyntheticAD(
        80, categories=["gear"], train_images=5, test_normals=3, test_anomalies=4
    )
    folder = trained_run.folder.parent / "gear"
    folder.mkdir(exist_ok=True)
    for i, sample in enumerate(s for s in data.samples if s.split == "test"):
        Image.fromarray(data.image(sample)).save(folder / f"{i}.png")
    lines = list(predict_images(trained_run.folder, find_images([folder])))
    kept = json.loads((trained_run.folder / "model.json").read_text())["thresholds"]
    limit = kept["f1max"]["gear"]
    scores = np.array([line["score"] for line in lines])
    # features were kept in half precision for the evaluation
    assert np.abs(scores - limit).min() < 2e-2 * abs(limit)


def test_heat_maps_are_the_image_beside_itself(trained_run, images, tmp_path):
    files = find_images([images])
    lines = list(predict_images(trained_run.folder, files, heat_maps=tmp_path / "maps"))
    for line, path in zip(lines, files, strict=True):
        pair = np.asarray(Image.open(line["heat_map"]))
        pixels = np.asarray(Image.open(path))
        assert pair.shape == (80, 160, 3)
        assert np.array_equal(pair[:, :80], pixels)


def test_images_of_one_name_get_heat_maps_of_their_own(trained_run, images, tmp_path):
    same = find_images([images])[:1] * 2
    lines = list(predict_images(trained_run.folder, same, heat_maps=tmp_path))
    assert len({line["heat_map"] for line in lines}) == 2


def test_a_folder_for_heat_maps_that_cannot_be_made_is_told(
    trained_run, images, tmp_path
):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write heat maps"):
        next(
            predict_images(
                trained_run.folder,
                find_images([images]),
                heat_maps=tmp_path / "file" / "maps",
            )
        )


@pytest.mark.parametrize(
    "key", ["type", "levels", "options", "backbone", "thresholds", "categories"]
)
def test_a_description_that_lacks_something_is_told(trained_run, images, tmp_path, key):
    run = tmp_path / "run"
    shutil.copytree(trained_run.folder, run)
    description = json.loads((run / "model.json").read_text())
    del description[key]
    (run / "model.json").write_text(json.dumps(description))
    with pytest.raises(AvalancheADError, match="damaged"):
        next(predict_images(run, find_images([images])))


def test_a_run_on_features_that_have_changed_is_refused(trained_run, images, tmp_path):
    run = shutil.copytree(trained_run.folder, tmp_path / "run")
    content = json.loads((run / "results.json").read_text())
    content["versions"]["features"] = "0123456789ab"
    (run / "results.json").write_text(json.dumps(content))
    files = find_images([images])
    with pytest.raises(ResultsError, match="other features.*0123456789ab, not"):
        next(predict_images(run, files))
    (run / "results.json").unlink()
    assert list(predict_images(run, files)) == list(
        predict_images(trained_run.folder, files)
    )
