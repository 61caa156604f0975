"""Data in several folders, on the command line and in recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avalanche_ad.benchmarks import SplitFolder
from avalanche_ad.datasets import SyntheticAD, write_mvtec_layout
from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.configuration import (
    configuration_differences,
    run_configuration,
)
from avalanche_ad.recipes import load_experiment

STREAM = """\
title = "Own"
dataset = "folder"
class_order = ["gear", "bolt"]
classes_per_experience = 1
image_size = 80
mask_size = 32
[model]
type = "feature_gmm"
[features]
backbone = "filterbank"
"""
FEW = {"train_images": 3, "test_normals": 2, "test_anomalies": 2}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders with a category each."""
    place = tmp_path_factory.mktemp("roots")
    for name in ("bolt", "gear"):
        write_mvtec_layout(SyntheticAD(64, categories=[name], **FEW), place / name)
    return place / "bolt", place / "gear"


@pytest.fixture
def stream(tmp_path):
    def write(data="", name="own.toml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{data}\n{STREAM}")
        return path

    return write


def given(roots):
    return [part for root in roots for part in ("--data", root)]


def test_check_and_run_from_two_folders(cli, stream, roots, tmp_path):
    path, out = stream(), tmp_path / "run"
    checked = cli("check", "-b", path, *given(roots))
    assert checked.code == 0, checked.err
    assert f"2 categories, 6 training and 8 test images in {roots[0]} and" in (
        checked.out + checked.err
    ).replace("\n", " ")

    ran = cli("run", "-b", path, "-s", "naive", "--out", out, *given(roots))
    assert ran.code == 0, ran.err
    results = json.loads((out / "results.json").read_text())
    assert results["config"]["data"] == [str(root) for root in roots]
    assert "data" not in results["config"]["benchmark"]
    assert results["categories"] == [["gear"], ["bolt"]]

    # moved data are the same run: into one folder, and named by the recipe
    joined = tmp_path / "joined"
    joined.mkdir()
    for root in roots:
        for category in root.iterdir():
            (joined / category.name).symlink_to(category)
    again = cli("run", "-b", path, "-s", "naive", "--out", out, "--data", joined)
    assert "already there" in again.out + again.err
    own = stream('data = ["joined"]')
    again = cli("run", "-b", own, "-s", "naive", "--out", out)
    assert "already there" in again.out + again.err
    gone = cli("run", "-b", own, "-s", "naive", "--out", out, "--data", "nowhere")
    assert "not compared (no folder nowhere)" in " ".join((gone.out + gone.err).split())
    one = cli("run", "-b", own, "-s", "naive", "--out", out, "--data", roots[0])
    assert (one.code, "'gear'" in one.err) == (2, True)

    compared = cli(
        *("compare", "-b", path, "--strategies", "naive", "--out", tmp_path / "all"),
        *given(roots),
    )
    assert compared.code == 0, compared.err


def test_folders_in_a_recipe_are_beside_it(stream, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = stream('data = ["a", "../b", "~/c", "/d"]', "recipes/own.toml")
    heir = tmp_path / "heir.toml"
    heir.write_text('title = "Heir"\nbase = "recipes/own.toml"\n')
    folder = tmp_path / "recipes"
    expected = (folder / "a", folder / "../b", tmp_path / "home/c", Path("/d"))
    for one in (path, heir):
        recipe = load_experiment(str(one), "naive").benchmark
        assert recipe.data_roots() == expected
        assert recipe.data_roots(["x"]) == (Path("x"),)  # the command line wins
    recipe = load_experiment(str(heir), "naive", ["data=e"]).benchmark
    assert recipe.data_roots() == (Path("e"),)
    other = load_experiment(str(heir), "naive", ["dataset=mvtec_ad"]).benchmark
    assert other.data is None
    monkeypatch.chdir(tmp_path)
    recipe = load_experiment("heir.toml", "naive").benchmark
    assert recipe.data_roots()[0] == Path("recipes/a")


@pytest.mark.parametrize("data", ['"one"', '["one"]', '["one", "two"]'])
def test_where_data_lie_is_no_part_of_a_run(stream, data):
    recipe = load_experiment(str(stream(f"data = {data}")), "naive")
    plain = load_experiment(str(stream(name="plain/own.toml")), "naive")
    found = run_configuration(recipe, None)
    assert not configuration_differences(found, run_configuration(plain, "elsewhere"))
    assert not configuration_differences(run_configuration(plain, "x"), found)
    # recorded as before, where there is one
    assert run_configuration(plain, Path("x"))["data"] == "x"
    assert "data" not in run_configuration(plain, Path("x"))["benchmark"]


@pytest.mark.parametrize(
    ("data", "words"),
    [("3", "key 'data'"), ("[]", "key 'data'"), ("[1]", "key 'data.*'")],
)
def test_wrong_folders_in_a_recipe(stream, data, words):
    with pytest.raises(RecipeError, match=words):
        load_experiment(str(stream(f"data = {data}")), "naive")


def test_drawn_images_lie_nowhere(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('title = "Own"\ndataset = "synthetic"\ndata = "x"\n')
    with pytest.raises(RecipeError, match="is drawn: leave 'data' out"):
        load_experiment(str(path), "naive")


def test_a_builder_takes_several_folders(roots):
    stream = SplitFolder(2, dataset_root=roots, image_size=64, mask_size=32)
    assert stream.category_names == ("bolt", "gear")
    other = SplitFolder(
        dataset_root=roots, experiences=[["gear"]], image_size=64, mask_size=32
    )
    assert other.category_names == ("gear",)
