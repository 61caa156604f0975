"""The shipped streams are the protocols that they are named after."""

from __future__ import annotations

from statistics import mean

import pytest

from avalanche_ad.benchmarks import split_categories
from avalanche_ad.datasets.btad import BTAD_CATEGORIES
from avalanche_ad.datasets.mvtec_3d import MVTEC_3D_CATEGORIES
from avalanche_ad.datasets.mvtec_ad import MVTEC_AD_CATEGORIES
from avalanche_ad.datasets.synthetic import SYNTHETIC_CATEGORIES
from avalanche_ad.datasets.visa import VISA_CATEGORIES
from avalanche_ad.experiments.recipe import (
    list_recipes,
    load_experiment,
    read_toml,
)
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache

SHAPES = {
    "2x2": [2, 2],
    "3x2": [2, 2, 2],
    "5x3": [3, 3, 3, 3, 3],
    "14_1": [14, 1],
    "10_5": [10, 5],
    "10_1x5": [10, 1, 1, 1, 1, 1],
    "1x15": [1] * 15,
    "11_1": [11, 1],
    "8_4": [8, 4],
    "8_1x4": [8, 1, 1, 1, 1],
    "1x12": [1] * 12,
    "1x3": [1] * 3,
    "1x10": [1] * 10,
}
OFFICIAL = {
    "mvtec": ("mvtec_ad", MVTEC_AD_CATEGORIES),
    "visa": ("visa", VISA_CATEGORIES),
    "btad": ("btad", BTAD_CATEGORIES),
    "mvtec3d": ("mvtec_3d", MVTEC_3D_CATEGORIES),
    "synthetic": ("synthetic", SYNTHETIC_CATEGORIES),
}
STREAMS = list(list_recipes("benchmarks"))
OWN = [name for name in STREAMS if not name.startswith("surfaces")]
REAL = [name for name in OWN if not name.startswith("synthetic")]


def recipe_of(name):
    return load_experiment(name, "naive").benchmark


def shape_of(name):
    """What follows the data set in a stream's name, without variants of the stream."""
    shape = name.partition("_")[2]
    return shape.removesuffix("_blurry").removesuffix("_online")


def split_of(name):
    """Split the categories as a run would, without a data set on disk."""
    recipe = recipe_of(name)
    chosen = recipe.selection or OFFICIAL[name.partition("_")[0]][1]
    return split_categories(
        chosen,
        n_experiences=recipe.n_experiences,
        classes_per_experience=recipe.classes_per_experience,
        experiences=recipe.experiences,
        class_order=recipe.class_order,
        seed=recipe.order_seed,
    )


def base_groups():
    return [name for name in REAL if len(set(SHAPES[shape_of(name)])) > 1]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_has_the_shape_its_name_says(name):
    assert [len(names) for names in split_of(name)] == SHAPES[shape_of(name)]


@pytest.mark.parametrize("name", OWN)
def test_names_are_categories_of_the_data_set(name):
    dataset, known = OFFICIAL[name.partition("_")[0]]
    assert recipe_of(name).dataset == dataset
    found = [category for names in split_of(name) for category in names]
    assert len(set(found)) == len(found)
    assert set(found) <= set(known)


@pytest.mark.parametrize("name", REAL)
def test_a_protocol_is_all_of_its_data_set_in_alphabetical_order(name):
    found = [category for names in split_of(name) for category in names]
    assert tuple(found) == OFFICIAL[name.partition("_")[0]][1]
    assert found == sorted(found)


@pytest.mark.parametrize("name", base_groups())
def test_screw_and_the_like_are_in_the_base_group(name):
    rare = {"mvtec": "screw", "visa": "pcb1"}[name.partition("_")[0]]
    assert rare in split_of(name)[0]


@pytest.mark.parametrize("name", REAL)
def test_every_protocol_has_a_synthetic_stream_of_its_shape(name):
    twin = f"synthetic_{shape_of(name)}"
    assert twin in STREAMS
    sizes = [len(names) for names in split_of(twin)]
    assert sizes == [len(names) for names in split_of(name)]


@pytest.mark.parametrize("name", REAL)
def test_protocols_share_sizes_and_budget(name):
    """Other streams of real images differ in data and split alone."""
    recipe, reference = recipe_of(name), recipe_of("mvtec_5x3")
    for key in ("image_size", "mask_size", "features", "model", "training"):
        assert getattr(recipe, key) == getattr(reference, key)


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_has_a_title_of_its_own(name):
    titles = [read_toml(path)["title"] for path in list_recipes("benchmarks").values()]
    assert titles.count(read_toml(list_recipes("benchmarks")[name])["title"]) == 1


@pytest.mark.parametrize("name", STREAMS)
def test_published_numbers_can_be_told_apart(name):
    entries = recipe_of(name).published
    assert len({(e.method, e.source, e.convention) for e in entries}) == len(entries)
    for entry in entries:
        assert entry.image_auroc is not None
        # what was measured is better than a coin, whatever it forgot
        assert 0.5 < entry.image_auroc < 1
        assert entry.strategy is None or entry.strategy in list_recipes("strategies")
        # a model trained on everything at once has nothing to forget
        if entry.convention == "joint":
            assert entry.image_forgetting is entry.pixel_forgetting is None
            assert "joint" in entry.method
        # the same code flips wherever it was run
        flips = entry.method.split(",")[0] in ("UniAD", "IUF", "CDAD")
        assert entry.flips_auroc == flips
    # one number beside a measured one
    named = [(e.strategy, e.convention) for e in entries if e.strategy]
    assert len(set(named)) == len(named)


def test_joint_numbers_are_the_same_whatever_the_order():
    by_data: dict[str, set[object]] = {}
    for name in REAL:
        recipe = recipe_of(name)
        joint = [entry for entry in recipe.published if entry.convention == "joint"]
        by_data.setdefault(recipe.dataset, set()).add(tuple(joint))
    assert {data for data, found in by_data.items() if any(found)} == {
        "mvtec_ad",
        "visa",
    }
    assert all(len(found) == 1 for found in by_data.values())


def test_values_by_experience_agree_with_their_mean():
    entries = [entry for name in STREAMS for entry in recipe_of(name).published]
    given = [entry for entry in entries if entry.image_auroc_by_experience]
    assert given
    for entry in given:
        for values, total in (
            (entry.image_auroc_by_experience, entry.image_auroc),
            (entry.pixel_auroc_by_experience, entry.pixel_auroc),
        ):
            assert mean(values) == pytest.approx(total, abs=0.005)


def test_the_users_table_is_whole():
    own = [e for e in recipe_of("mvtec_5x3").published if "a user" in e.source]
    assert [entry.strategy for entry in own] == [
        "naive",
        "ewc",
        "lwf",
        "packnet",
        "replay",
    ]
    assert {entry.convention for entry in own} == {"final"}
    # positive = forgot
    naive = own[0]
    assert (naive.image_forgetting, naive.pixel_forgetting) == (0.334, 0.207)


def test_a_stream_grows_one_category_at_a_time(tmp_path):
    small = {
        "image_size": 80,
        "mask_size": 32,
        "synthetic.train_images": 2,
        "synthetic.test_normals": 1,
        "synthetic.test_anomalies": 1,
        "model.couplings": 1,
        "model.condition_channels": 4,
        "model.centers_per_category": 2,
        "training.epochs": 1,
        "training.batch_size": 2,
    }
    overrides = [f"{key}={value}" for key, value in small.items()]
    seen = []
    results = run_experiment(
        load_experiment("synthetic_1x15", "naive", overrides),
        tmp_path / "run",
        cache=FeatureCache(tmp_path / "cache"),
        after_task=lambda task, rows: seen.append(len(rows)),
    )
    assert seen == list(range(1, 16))
    assert results["categories"] == [[name] for name in SYNTHETIC_CATEGORIES]
    matrix = results["matrix"]["image_auroc"]
    for after, row in enumerate(matrix):
        assert [value is not None for value in row] == [t <= after for t in range(15)]
    assert set(results["per_category"]["pixel_auroc"]) == set(SYNTHETIC_CATEGORIES)


BLURRY = ("naive", "replay", "lwf", "ewc", "cumulative", "joint", "feature_gmm")


@pytest.mark.parametrize("strategy", BLURRY)
def test_strategies_run_where_boundaries_are_blurry(strategy, tiny_stream, tmp_path):
    recipe = load_experiment(str(tiny_stream), strategy, ["blurry=0.4"])
    results = run_experiment(recipe, tmp_path / "run")
    # measured where a category is at home, wherever its images arrived
    assert results["categories"] == [["bolt", "brush"], ["carpet_weave", "gear"]]
    assert results["config"]["benchmark"]["blurry"] == 0.4
    for metric in ("image_auroc", "pixel_auroc", "category_accuracy"):
        matrix = results["matrix"][metric]
        assert matrix[0][1] is None
        assert None not in matrix[1]
        assert (matrix[0][0] is None) == (strategy == "joint")
        assert len(results["per_category"][metric]) == 4
    forgotten = results["forgetting"]["image_auroc"]
    assert (forgotten is None) == (strategy == "joint")


def test_one_pass_is_one_pass():
    training = recipe_of("synthetic_5x3_online").training
    assert training.epochs == 1
    assert training.batch_size < recipe_of("synthetic_5x3").training.batch_size
    # the schedule and the losses must fit into the pass
    assert training.warmup_epochs < 0.5
    assert training.intra_class_warmup_epochs == 0
