"""The shipped streams are the protocols that they are named after."""

from __future__ import annotations

import re
from statistics import mean

import pytest

from avalanche_ad.benchmarks import split_categories
from avalanche_ad.datasets.readers.btad import BTAD_CATEGORIES
from avalanche_ad.datasets.readers.mpdd import MPDD_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_3d import MVTEC_3D_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_ad import MVTEC_AD_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_ad_2 import MVTEC_AD_2_CATEGORIES
from avalanche_ad.datasets.readers.mvtec_loco import MVTEC_LOCO_CATEGORIES
from avalanche_ad.datasets.readers.real_iad import REAL_IAD_CATEGORIES
from avalanche_ad.datasets.readers.visa import VISA_CATEGORIES
from avalanche_ad.datasets.synthetic import SYNTHETIC_CATEGORIES
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import (
    list_recipes,
    load_experiment,
    read_toml,
)

# What others published numbers on, or that streams of ours stand beside: these claims
# are of these streams. Any other stream only has to be what its name says.
PROTOCOLS = {
    "mvtec_5x3": "mvtec_ad",
    "mvtec_14_1": "mvtec_ad",
    "mvtec_10_5": "mvtec_ad",
    "mvtec_10_1x5": "mvtec_ad",
    "mvtec_1x15": "mvtec_ad",
    "visa_11_1": "visa",
    "visa_8_4": "visa",
    "visa_8_1x4": "visa",
    "visa_1x12": "visa",
    "btad_1x3": "btad",
    "mvtec3d_1x10": "mvtec_3d",
}
OFFICIAL = {
    "mvtec_ad": MVTEC_AD_CATEGORIES,
    "visa": VISA_CATEGORIES,
    "btad": BTAD_CATEGORIES,
    "mvtec_3d": MVTEC_3D_CATEGORIES,
    "mpdd": MPDD_CATEGORIES,
    "mvtec_ad_2": MVTEC_AD_2_CATEGORIES,
    "mvtec_loco": MVTEC_LOCO_CATEGORIES,
    "real_iad": REAL_IAD_CATEGORIES,
    "synthetic": SYNTHETIC_CATEGORIES,
}
STREAMS = list(list_recipes("benchmarks"))


def recipe_of(name):
    return load_experiment(name, "naive").benchmark


def sizes_of(name):
    """Return the sizes of the experiences that a stream's name says, if it does.

    After the data set a name says 5x3 for 5 times 3 categories, 10_5 for 10 and then
    5, 10_1x5 for 10 and then one by one 5 times, so 1x15 for one by one 15 times. What
    else follows is of a variant.
    """
    found = re.fullmatch(r"\w+?_(\d+(?:x\d+)?(?:_\d+(?:x\d+)?)*)(?:_[a-z]\w*)?", name)
    if found is None:
        return None
    sizes = []
    for part in found[1].split("_"):
        first, _, second = part.partition("x")
        if not second:
            sizes.append(int(first))
        elif first == "1":
            sizes += [1] * int(second)
        else:
            sizes += [int(second)] * int(first)
    return sizes


SIZED = [name for name in STREAMS if sizes_of(name)]


def split_of(name):
    """Split the categories as a run would, without a data set on disk."""
    recipe = recipe_of(name)
    chosen = recipe.selection or OFFICIAL.get(recipe.dataset)
    if chosen is None:
        pytest.skip(f"only the data on disk say what {recipe.dataset!r} holds")
    return split_categories(
        chosen,
        n_experiences=recipe.n_experiences,
        classes_per_experience=recipe.classes_per_experience,
        experiences=recipe.experiences,
        class_order=recipe.class_order,
        seed=recipe.order_seed,
    )


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("visa_8_1x4", [8, 1, 1, 1, 1]),
        ("synthetic_5x3", [3, 3, 3, 3, 3]),
        ("synthetic_2x2_blurry", [2, 2]),
        ("mvtec_3d_10_5_for_night_2", [10, 5]),
        ("mvtec_1x3", [1, 1, 1]),
        ("mvtec_3d", None),
        ("screws_long", None),
        ("screws", None),
    ],
)
def test_a_name_says_sizes_or_it_does_not(name, sizes):
    assert sizes_of(name) == sizes


def test_the_shipped_names_say_sizes():
    further = {"loco_1x5", "mpdd_1x6", "mvtecad2_1x8", "realiad_1x30"}
    others = {*further, "surfaces_3x2", "synthetic_5x3_online"}
    assert {*PROTOCOLS, *others} <= set(SIZED)


@pytest.mark.parametrize("name", SIZED)
def test_a_stream_has_the_shape_its_name_says(name):
    assert [len(names) for names in split_of(name)] == sizes_of(name)


@pytest.mark.parametrize("name", STREAMS)
def test_names_are_categories_of_the_data_set(name):
    found = [category for names in split_of(name) for category in names]
    assert len(set(found)) == len(found)
    known = OFFICIAL.get(recipe_of(name).dataset)
    assert known is None or set(found) <= set(known)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_all_of_its_data_set_in_alphabetical_order(name):
    assert recipe_of(name).dataset == PROTOCOLS[name]
    found = [category for names in split_of(name) for category in names]
    assert tuple(found) == OFFICIAL[PROTOCOLS[name]]
    assert found == sorted(found)


@pytest.mark.parametrize("name", [n for n in PROTOCOLS if len(set(sizes_of(n))) > 1])
def test_screw_and_the_like_are_in_the_base_group(name):
    rare = {"mvtec_ad": "screw", "visa": "pcb1"}[PROTOCOLS[name]]
    assert rare in split_of(name)[0]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_a_synthetic_stream_of_its_shape(name):
    twin = f"synthetic_{name.partition('_')[2]}"
    assert twin in STREAMS
    sizes = [len(names) for names in split_of(twin)]
    assert sizes == [len(names) for names in split_of(name)]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_share_sizes_and_budget(name):
    """Other protocols differ in data and split alone."""
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
        values = [v for v in (entry.image_auroc, entry.pixel_auroc) if v is not None]
        assert values
        # what was measured is better than a coin, whatever it forgot
        assert all(0.5 < value < 1 for value in values)
        assert entry.strategy is None or entry.strategy in list_recipes("strategies")
        # a model trained on everything at once has nothing to forget
        if entry.convention == "joint":
            assert entry.image_forgetting is entry.pixel_forgetting is None
            assert "joint" in entry.method
    # one number beside a measured one
    named = [(e.strategy, e.convention) for e in entries if e.strategy]
    assert len(set(named)) == len(named)


def test_the_same_code_flips_wherever_it_was_run():
    flips: dict[str, set[bool]] = {}
    for entry in (entry for name in STREAMS for entry in recipe_of(name).published):
        if "here by others" in entry.source:
            # what their code does is not known
            assert not entry.flips_auroc
        else:
            found = flips.setdefault(entry.method.split(",")[0], set())
            found.add(entry.flips_auroc)
    assert all(len(found) == 1 for found in flips.values()), flips
    assert flips["UniAD"] == flips["IUF"] == flips["CDAD"] == {True}
    assert flips["HGAD"] == {False}


def test_joint_numbers_are_the_same_whatever_the_order():
    by_data: dict[str, set[object]] = {}
    for name in PROTOCOLS:
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
        "packnet_flow_only",
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


BLURRY = [
    "naive",
    "replay",
    "lwf",
    "ewc",
    "cumulative",
    "joint",
    "feature_gmm",
    "gmm_alignment",
    "alignment_exemplars",
    "alignment_snapshot",
]


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
