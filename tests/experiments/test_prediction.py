"""Prediction with a saved run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.datasets.loading import load_image
from avalanche_ad.errors import (
    AvalancheADError,
    DatasetError,
    RecipeError,
    ResultsError,
)
from avalanche_ad.experiments import prediction
from avalanche_ad.experiments.decisions import Threshold
from avalanche_ad.experiments.image_files import find_images
from avalanche_ad.experiments.prediction import predict_images
from avalanche_ad.models.thresholds import HeldOutScores

FIELDS = {
    *("image", "score", "category", "threshold", "anomalous"),
    *("normals_above", "false_alarms"),
}


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
        assert set(line) == FIELDS
        assert line["threshold"] == kept["quantile"][line["category"]]
        assert line["anomalous"] == (line["score"] >= line["threshold"])
        json.dumps(line)


def test_the_other_threshold_gives_its_own_decision(trained_run, images):
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
    source, maps = find_images([images])[0], tmp_path / "maps"
    places = [tmp_path / name / "000.png" for name in ("a", "b")]
    found = []
    for place in [*places, places[0]]:
        place.parent.mkdir(exist_ok=True)
        shutil.copy(source, place)
        (line,) = predict_images(trained_run.folder, [place], heat_maps=maps)
        found.append(line["heat_map"])
    assert found[0] != found[1]
    assert found[0] == found[2]
    assert sorted(map(str, maps.iterdir())) == sorted(set(found))


def test_heat_maps_are_no_images_of_the_next_call(
    trained_run, images, tmp_path, caplog
):
    parts = shutil.copytree(images, tmp_path / "parts")
    before = find_images([parts])
    for maps in (parts, parts / "maps"):  # beside the images, too
        assert all(
            "heat_map" in line
            for line in predict_images(trained_run.folder, before, heat_maps=maps)
        )
        caplog.clear()
        assert find_images([parts]) == before
        assert "that predict wrote are passed over" in caplog.text
    with pytest.raises(DatasetError, match="no image but heat maps"):
        find_images([parts / "maps"])


def test_a_heat_map_is_written_whole_or_not_at_all(
    trained_run, images, tmp_path, monkeypatch
):
    files = find_images([images])[:1]
    list(predict_images(trained_run.folder, files, heat_maps=tmp_path))
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()

    def full(self, file, *args, **kwargs):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    (line,) = predict_images(trained_run.folder, files, heat_maps=tmp_path)
    assert set(line) == FIELDS | {"error"}
    assert (
        line["error"] == f"{path}: cannot write the heat map (No space left on device)"
    )
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_heat_maps_have_the_mode_of_the_umask(trained_run, images, tmp_path, mask):
    before = os.umask(mask)
    try:
        files = find_images([images])[:1]
        (line,) = predict_images(trained_run.folder, files, heat_maps=tmp_path)
    finally:
        os.umask(before)
    assert Path(line["heat_map"]).stat().st_mode & 0o777 == 0o666 & ~mask


def test_hidden_and_system_files_in_folders_are_passed_over(images, tmp_path):
    good = find_images([images])[0]
    for name in ("a.png", "._a.png", ".hidden/b.png", "__MACOSX/c.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(good, tmp_path / name)
    assert find_images([tmp_path]) == [tmp_path / "a.png"]
    given = tmp_path / "._a.png"
    assert find_images([given]) == [given]


def test_an_image_given_twice_is_taken_once(images, tmp_path, monkeypatch):
    every = find_images([images])
    assert find_images([images, every[0], images]) == every
    monkeypatch.chdir(images)
    turned = images / ".." / images.name
    relative = Path(every[0].parent.name, "..", every[0].relative_to(images))
    (tmp_path / "link").symlink_to(images)
    assert find_images([images, turned, relative, tmp_path / "link"]) == every


def test_the_folder_above_a_link_is_that_of_its_target(images, tmp_path):
    """``link/..`` is not where the link lies."""
    every = find_images([images])
    place = tmp_path / "deep" / "below"
    place.mkdir(parents=True)
    (tmp_path / "link").symlink_to(place)
    for folder in (tmp_path, tmp_path / "deep"):
        shutil.copy(every[0], folder / "a.png")
    given = [tmp_path / "a.png", tmp_path / "link" / ".." / "a.png"]
    assert find_images(given) == given


@pytest.mark.parametrize("stem", ["😀" * 60, "ä" * 100, "a" + "😀" * 40, "x" * 250])
def test_an_images_name_may_be_as_long_as_the_file_system_allows(
    trained_run, images, tmp_path, stem
):
    name = os.fsencode(stem)[:250].decode(errors="ignore") + ".png"
    shutil.copy(find_images([images])[0], tmp_path / name)
    maps = tmp_path / "maps"
    (line,) = predict_images(trained_run.folder, [tmp_path / name], heat_maps=maps)
    assert [str(path) for path in maps.iterdir()] == [line["heat_map"]]
    assert line["heat_map"].startswith(str(maps / name[:10]))


def test_one_heat_map_that_fails_costs_no_other(
    trained_run, images, tmp_path, monkeypatch
):
    files = find_images([images])
    written = prediction.save_heat_map

    def save(target, *arguments):
        if target.name.startswith(files[1].stem):
            raise OSError(36, "File name too long")
        written(target, *arguments)

    monkeypatch.setattr(prediction, "save_heat_map", save)
    lines = list(predict_images(trained_run.folder, files, heat_maps=tmp_path))
    failed = [line["image"] for line in lines if "error" in line]
    expected = [str(path) for path in files if path.stem == files[1].stem]
    assert failed == expected
    for line in lines:
        assert "score" in line
        assert ("heat_map" in line) == (line["image"] not in failed)


def test_a_name_that_no_file_can_have_is_one_line(trained_run, images):
    path = Path("y" * 300 + ".png")
    with pytest.raises(DatasetError, match="cannot be read: File name too long"):
        find_images([path])
    good = find_images([images])[0]
    first, second = predict_images(trained_run.folder, [path, good])
    assert first["error"].endswith("cannot be read: File name too long")
    assert "score" in second


def test_what_may_not_be_opened_is_told_with_its_reason(
    trained_run, images, tmp_path, monkeypatch
):
    folder, good = tmp_path / "locked", find_images([images])[0]
    folder.mkdir()
    shutil.copy(good, folder / "a.png")
    shutil.copy(good, tmp_path / "b.png")
    scandir, own_stat = os.scandir, Path.stat

    def locked(path):
        if str(path) == str(folder):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    def hidden(path, **options):
        if path.parent == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return own_stat(path, **options)

    monkeypatch.setattr(os, "scandir", locked)
    monkeypatch.setattr(Path, "stat", hidden)
    assert find_images([tmp_path]) == [tmp_path / "b.png", folder]
    files = [folder, folder / "a.png", tmp_path / "b.png"]
    lines = list(predict_images(trained_run.folder, files))
    for line, path in zip(lines, files[:2], strict=False):
        assert line["error"] == f"{path}: cannot be read: Permission denied"
    assert "score" in lines[2]
    with pytest.raises(DatasetError, match="a.png: cannot be read: Permission denied"):
        find_images([folder / "a.png"])


@pytest.mark.parametrize("limit", ["-1", "0", "score:0"])
def test_a_threshold_that_is_not_positive_paints_no_map_full(
    trained_run, images, tmp_path, limit
):
    files = find_images([images])[:1]
    (line,) = predict_images(
        trained_run.folder, files, heat_maps=tmp_path, threshold=limit
    )
    pair = np.asarray(Image.open(line["heat_map"])).astype(int)
    change = np.abs(pair[:, :80] - pair[:, 80:]).sum(2)
    assert change.min() <= 6 < change.max()


def test_what_can_spoil_a_score_is_noted(trained_run, images, tmp_path):
    good = load_image(find_images([images])[0])
    dark = tmp_path / "dark.png"
    Image.fromarray(good[..., 0].astype(np.uint16) * 16).save(dark)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(good).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(good).save(tmp_path / "upright.jpg")
    lines = list(predict_images(trained_run.folder, find_images([tmp_path])))
    notes = [line.get("note") for line in lines]
    assert notes[0].startswith("16-bit grey of which 12 bits are used, nearly black")
    assert notes[1:] == ["with an EXIF orientation, which is ignored", None]
    assert all("score" in line for line in lines)


def damaged(folder, good):
    """Write one file of each kind of damage, and one empty folder."""
    content = good.read_bytes()
    for name, data in {
        "truncated.png": content[: len(content) // 2],
        "empty.png": b"",
        "text.jpg": b"no image",
    }.items():
        (folder / name).write_bytes(data)
    Image.new("F", (20, 20)).save(folder / "float.tif")
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_one_bad_image_costs_no_other_its_score(
    trained_run, images, tmp_path, batch_size
):
    good = find_images([images])
    names = ["a.png", "m.png", "z.png"]
    for name, source in zip(names, good, strict=False):
        shutil.copy(source, tmp_path / name)
    damaged(tmp_path, good[0])
    files = find_images([tmp_path])
    files.insert(4, tmp_path / "vanished.png")
    lines = list(
        predict_images(
            trained_run.folder,
            files,
            heat_maps=tmp_path / "maps",
            batch_size=batch_size,
        )
    )
    assert [line["image"] for line in lines] == [str(path) for path in files]
    expected = list(predict_images(trained_run.folder, good[:3]))
    scored = [line for line in lines if "error" not in line]
    assert [Path(line["image"]).name for line in scored] == names
    for line, same in zip(scored, expected, strict=True):
        assert line["score"] == pytest.approx(same["score"], rel=1e-4)
    bad = {Path(line["image"]).name: line for line in lines if "error" in line}
    assert len(bad) == 8
    for name, line in bad.items():
        assert set(line) == {"image", "error"}
        assert name in line["error"]
        assert "\n" not in line["error"]
    assert "floating-point" in bad["float.tif"]["error"]
    assert "file not found" in bad["vanished.png"]["error"]
    assert "not a file" in bad["pipe.png"]["error"]


def test_an_image_too_large_for_memory_is_told(trained_run, images, monkeypatch):
    files = find_images([images])

    def load(path):
        if path == files[1]:
            raise MemoryError
        return load_image(path)

    monkeypatch.setattr(prediction, "load_image", load)
    lines = list(predict_images(trained_run.folder, files))
    assert ["error" in line for line in lines] == [path == files[1] for path in files]


def test_large_images_are_shown_smaller(trained_run, tmp_path):
    Image.new("RGB", (3000, 1500)).save(tmp_path / "large.png")
    (line,) = predict_images(
        trained_run.folder, [tmp_path / "large.png"], heat_maps=tmp_path / "maps"
    )
    with Image.open(line["heat_map"]) as pair:
        assert pair.size == (4096, 1024)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quantile", Threshold()),
        ("f1max", Threshold(f1max=True)),
        ("0.99", Threshold(level=0.99)),
        ("12.3", Threshold(score=12.3)),
        ("-0.5", Threshold(score=-0.5)),
        ("1", Threshold(score=1.0)),
        ("0", Threshold(score=0.0)),
        ("score:0.5", Threshold(score=0.5)),
    ],
)
def test_thresholds_that_can_be_chosen(text, expected):
    assert Threshold.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "median", "nan", "inf", "99%", "score:", "score:x", "level:0.5", "0,9"]
)
def test_other_thresholds_are_refused(text):
    with pytest.raises(RecipeError, match="--threshold: expected quantile, f1max"):
        Threshold.parse(text)


def test_a_threshold_says_how_sure_it_is(trained_run, images):
    files = find_images([images])
    kept = json.loads((trained_run.folder / "model.json").read_text())["held_out"]
    for line in predict_images(trained_run.folder, files, threshold="0.6"):
        scores = HeldOutScores(kept[line["category"]])
        assert line["threshold"] == scores.threshold(0.6)
        assert line["normals_above"] == pytest.approx(
            scores.share_above(line["score"]), abs=1e-6
        )
        # of five held-out normals the fourth
        assert line["false_alarms"]["images"] == 5
        assert line["false_alarms"]["expected"] == pytest.approx(2 / 6, abs=1e-4)
        assert line["anomalous"] == (line["normals_above"] <= 2 / 6 + 1e-6)
    for line in predict_images(trained_run.folder, files, threshold="score:0.5"):
        assert line["threshold"] == 0.5
        assert line["anomalous"] == (line["score"] >= 0.5)


def test_a_run_of_an_earlier_version_predicts_by_what_it_has(
    trained_run, images, tmp_path, caplog
):
    run = shutil.copytree(trained_run.folder, tmp_path / "run")
    description = json.loads((run / "model.json").read_text())
    del description["held_out"]
    (run / "model.json").write_text(json.dumps(description))
    files = find_images([images])
    for line in predict_images(run, files):
        assert (
            line["threshold"] == description["thresholds"]["quantile"][line["category"]]
        )
        assert set(line) == FIELDS - {"normals_above", "false_alarms"}
    assert "made by an earlier version" in caplog.text
    assert len(list(predict_images(run, files, threshold="f1max"))) == len(files)
    with pytest.raises(ResultsError, match="no scores of held-out normals"):
        next(predict_images(run, files, threshold="0.99"))


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


@pytest.fixture
def described(trained_run, tmp_path):
    """Give a copy of the run whose model.json is changed."""
    folder = shutil.copytree(trained_run.folder, tmp_path / "run")

    def make(**changes):
        path = folder / "model.json"
        description = json.loads(path.read_text())
        path.write_text(json.dumps(description | changes))
        return folder, description

    return make


def test_what_was_held_out_is_taken_from_the_run_not_the_model(
    described, images, caplog
):
    run, before = described()
    assert before["density_held_out"] == dict.fromkeys(before["categories"], False)
    files = find_images([images])
    found = {line["category"] for line in predict_images(run, files)}
    others = [name for name in before["categories"] if name not in found]
    for honest in (found, others):
        run, _ = described(density_held_out=dict.fromkeys(honest, True))
        caplog.clear()
        for line in predict_images(run, files):
            assert line["false_alarms"]["trained_on"] == (honest is others)
        told = sorted(found if honest is others else others)
        assert f"its model was fitted to ({', '.join(told)})" in caplog.text


def test_a_category_without_a_threshold_is_told_of(described, images, caplog):
    run, before = described()
    for gone in ("bolt", "gear"):
        kept = {name: of for name, of in before["held_out"].items() if name != gone}
        run, _ = described(held_out=kept)
        caplog.clear()
        lines = list(predict_images(run, find_images([images])))
        (said,) = [m for m in caplog.messages if "no threshold for" in m]
        assert f"no threshold for {gone}:" in said
        assert f"avalanche-ad calibrate {run} NEW_NORMALS" in said
        for line in lines:
            assert (line["threshold"] is None) == (line["category"] == gone)
            assert (line["anomalous"] is None) == (line["category"] == gone)
    assert any(line["threshold"] is None for line in lines)  # "gear" is found
