"""Recipes are strict, and every one that is shipped loads."""

from __future__ import annotations

import pickle
import re

import pytest
import torch

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.build import build_strategy, check_strategy
from avalanche_ad.experiments.unsupported import resolve
from avalanche_ad.features import FeatureLayout
from avalanche_ad.models.feature_gmm import FeatureGMMOptions
from avalanche_ad.models.hgad.options import FlowGMMOptions
from avalanche_ad.recipes import (
    list_recipes,
    load_experiment,
    read_toml,
)
from avalanche_ad.registry import Registry
from avalanche_ad.training import DynamicFlowGMM

STREAM = """\
title = "Own"
dataset = "synthetic"
classes_per_experience = 2
[model]
couplings = 3
[training]
epochs = 5
lr = 1e-3
"""
PERCENT = """\
[[published]]
method = "X"
source = "Y"
convention = "final"
image_auroc = 84.2
"""
REPLAY = '[[plugins]]\ntype = "avalanche.training.plugins.ReplayPlugin"\n'
POLICY = "avalanche.training.storage_policy.ParametricBuffer"
LEARNER = """\
title = "Own"
summary = "As it comes."
"""


@pytest.fixture
def stream(tmp_path):
    """Write a benchmark recipe, with lines put before or after those there are."""

    def write(before="", after=""):
        path = tmp_path / "stream.toml"
        path.write_text(before + STREAM + after)
        return str(path)

    return write


@pytest.fixture
def learner(tmp_path):
    """Write a strategy recipe with lines put after those there are."""

    def write(after=""):
        path = tmp_path / "learner.toml"
        path.write_text(LEARNER + after)
        return str(path)

    return write


def own_plugins(recipe):
    """Build a strategy for a small model, and return the plugins of its recipe."""
    model = DynamicFlowGMM(
        FeatureLayout(((2, 2, 8),)), 2, couplings=1, condition_channels=0
    )
    strategy = build_strategy(recipe, model, torch.device("cpu"), [], [], 8)
    return strategy.plugins[: len(recipe.strategy.plugins)]


def test_recipes_of_the_package_are_found():
    streams = {"synthetic_5x3", "synthetic_2x2", "mvtec_5x3", "surfaces_3x2"}
    assert streams <= set(list_recipes("benchmarks"))
    strategies = {"naive", "joint", "cumulative", "replay", "ewc", "lwf", "feature_gmm"}
    assert strategies <= set(list_recipes("strategies"))


@pytest.mark.parametrize("strategy", ["naive", "feature_gmm"])
@pytest.mark.parametrize("benchmark", list_recipes("benchmarks"))
def test_every_shipped_benchmark_loads(benchmark, strategy):
    recipe = load_experiment(benchmark, strategy)
    assert (recipe.benchmark_name, recipe.strategy_name) == (benchmark, strategy)


@pytest.mark.parametrize("strategy", list_recipes("strategies"))
@pytest.mark.parametrize("benchmark", ["synthetic_5x3", "mvtec_5x3"])
def test_every_shipped_strategy_loads(benchmark, strategy):
    recipe = load_experiment(benchmark, strategy)
    assert (recipe.benchmark_name, recipe.strategy_name) == (benchmark, strategy)
    check_strategy(recipe)


@pytest.mark.parametrize("strategy", list_recipes("strategies"))
def test_every_shipped_strategy_says_what_it_is_and_whose(strategy):
    content = read_toml(list_recipes("strategies")[strategy])
    assert content["summary"].endswith(".")
    assert content["reference"]


def test_the_default_stream_is_five_tasks_of_three():
    recipe = load_experiment("synthetic_5x3", "naive")
    assert recipe.benchmark.classes_per_experience == 3
    assert recipe.benchmark.categories is None


def test_a_path_works_wherever_a_name_does(stream, learner):
    recipe = load_experiment(stream(), learner())
    assert (recipe.benchmark_name, recipe.strategy_name) == ("stream", "learner")


def test_the_strategy_goes_over_the_benchmark(stream, learner):
    recipe = load_experiment(
        stream(), learner("[model]\nclamp = 1.5\n[training]\nepochs = 7\n")
    )
    assert recipe.benchmark.model == FlowGMMOptions(couplings=3, clamp=1.5)
    assert (recipe.benchmark.training.epochs, recipe.benchmark.training.lr) == (7, 1e-3)


def test_a_model_of_another_type_replaces_the_benchmarks(stream, learner):
    change = '[model]\ntype = "feature_gmm"\ncomponents = 4\n'
    recipe = load_experiment(stream(), learner(change))
    assert recipe.benchmark.model == FeatureGMMOptions(type="feature_gmm", components=4)
    assert recipe.benchmark.training.lr == 1e-3


@pytest.mark.parametrize(
    ("override", "found", "expected"),
    [
        ("training.epochs=9", lambda r: r.benchmark.training.epochs, 9),
        ("training.lr=5e-4", lambda r: r.benchmark.training.lr, 5e-4),
        ("training.betas=[0.5, 0.9]", lambda r: r.benchmark.training.betas, (0.5, 0.9)),
        ("model.center_init=data", lambda r: r.benchmark.model.center_init, "data"),
        ("model.clamp = 2.5", lambda r: r.benchmark.model.clamp, 2.5),
        (
            "features.dtype='float32'",
            lambda r: r.benchmark.features.dtype,
            "float32",
        ),
        (
            "features.options.strides=[4]",
            lambda r: r.benchmark.features.options,
            {"strides": [4]},
        ),
        ("synthetic.seed=3", lambda r: r.benchmark.synthetic.seed, 3),
        ("image_size=64", lambda r: r.benchmark.image_size, 64),
        ("order_seed=3", lambda r: r.benchmark.order_seed, 3),
        ("blurry=0.1", lambda r: r.benchmark.blurry, 0.1),
        ("title=On a whim", lambda r: r.benchmark.title, "On a whim"),
        ("options.eval_every=1", lambda r: r.strategy.options, {"eval_every": 1}),
        (
            "plugins.0.mem_size=7",
            lambda r: r.strategy.plugins[0].arguments,
            {"mem_size": 7},
        ),
        (
            "plugins.0.storage_policy.max_size=7",
            lambda r: r.strategy.plugins[0].arguments,
            {"storage_policy": {"max_size": 7}},
        ),
        ("options.a.b=1", lambda r: r.strategy.options, {"a": {"b": 1}}),
    ],
)
def test_an_override_of_every_kind(stream, learner, override, found, expected):
    recipe = load_experiment(stream(), learner(REPLAY), [override])
    assert found(recipe) == expected


@pytest.mark.parametrize("strategy", ["naive", "feature_gmm"])
def test_a_model_without_a_flow_has_no_epochs(stream, strategy):
    change = ["training.epochs=4", "training.lr=0.5"]
    if strategy == "naive":
        change.append("model={type='feature_gmm'}")
    training = load_experiment(stream(), strategy, change).benchmark.training
    assert (training.epochs, training.lr) == (0, 0.5)
    with pytest.raises(RecipeError, match="'many'"):
        load_experiment(stream(), strategy, ["training.epochs=many"])


def test_overrides_apply_in_order_and_after_the_strategy(stream, learner):
    recipe = load_experiment(
        stream(),
        learner("[training]\nepochs = 7\n"),
        ["training.epochs=8", "training.epochs=9"],
    )
    assert recipe.benchmark.training.epochs == 9


def test_an_override_leaves_what_is_beside_it():
    recipe = load_experiment(
        "synthetic_5x3", "replay_balanced", ["plugins.0.storage_policy.max_size=64"]
    )
    shipped = load_experiment("synthetic_5x3", "replay_balanced")
    expected = shipped.strategy.plugins[0].arguments
    assert expected["storage_policy"]["max_size"] != 64
    expected["storage_policy"] = {**expected["storage_policy"], "max_size": 64}
    assert recipe.strategy.plugins[0].arguments == expected
    check_strategy(recipe)


SPLIT = (
    *("dataset", "n_experiences", "classes_per_experience", "experiences"),
    *("categories", "class_order", "order_seed", "synthetic"),
)


@pytest.mark.parametrize(
    ("before", "overrides", "expected"),
    [
        ("", ["n_experiences=5"], {"n_experiences": 5}),
        (
            'class_order = ["gear", "bolt"]\n',
            ["experiences=[['bolt'], ['gear']]"],
            {"experiences": (("bolt",), ("gear",))},
        ),
        (
            'categories = ["gear", "bolt"]\norder_seed = 3\n',
            ["class_order=['brush']"],
            {"class_order": ("brush",), "classes_per_experience": 2},
        ),
        # to shuffle is not to choose
        (
            'categories = ["gear", "bolt"]\n',
            ["order_seed=3"],
            {
                "categories": ("gear", "bolt"),
                "order_seed": 3,
                "classes_per_experience": 2,
            },
        ),
        # what is given beside it stays, in whichever order
        (
            "order_seed = 3\n",
            ["order_seed=4", "class_order=['brush']"],
            {"class_order": ("brush",), "order_seed": 4, "classes_per_experience": 2},
        ),
        (
            'class_order = ["gear", "bolt"]\n',
            ["dataset=visa"],
            {"dataset": "visa", "classes_per_experience": 2},
        ),
        (
            'class_order = ["gear", "bolt"]\n',
            ["dataset=synthetic"],
            {"class_order": ("gear", "bolt"), "classes_per_experience": 2},
        ),
    ],
)
def test_an_override_replaces_what_a_base_would_lose(
    stream, based, before, overrides, expected
):
    path = stream(before)
    found = load_experiment(path, "naive", overrides).benchmark
    said = found.model_dump(include=set(SPLIT), exclude_none=True)
    assert said == {"dataset": "synthetic", **expected}
    # the same as a file that says so over its base
    lines = [re.sub("=([a-z]+)$", r"='\1'", override) for override in overrides]
    over = based("\n".join(lines) + "\n", before)
    assert over.model_copy(update={"title": "Own"}) == found


def test_two_ways_of_splitting_given_at_once_both_stay(stream):
    overrides = ["n_experiences=5", "classes_per_experience=3"]
    found = load_experiment(stream(), "naive", overrides).benchmark
    assert (found.n_experiences, found.classes_per_experience) == (5, 3)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("colour = 1\n", "", ["stream.toml", "unknown key 'colour'", "class_order"]),
        ("bsae = 'x'\n", "", ["unknown key 'bsae' (did you mean 'base'?)", ", base"]),
        ("", "epoch = 3\n", ["unknown key 'training.epoch'", "did you mean 'epochs'"]),
        ("image_size = 'big'\n", "", ["key 'image_size'", "integer", "'big'"]),
        ("image_size = 8\n", "", ["key 'image_size'", "16", "got 8"]),
        ("mask_size = 0\n", "", ["key 'mask_size'", "16"]),
        ("class_order = 'bolt'\n", "", ["key 'class_order'", "'bolt'"]),
        ("", "weight_decay = -1\n", ["key 'training.weight_decay'", "got -1"]),
        ("", "betas = [0.9]\n", ["key 'training.betas"]),
        ("", "[features]\ndtype = 'int8'\n", ["features.dtype", "float16"]),
        ("", "[synthetic]\ntrain_images = 0\n", ["synthetic.train_images", "got 0"]),
        ("", "[[published]]\nmethod = 'X'\n", ["published.0.source", "required"]),
        ("", PERCENT, ["key 'published.0.image_auroc'", "got 84.2"]),
        ("blurry = 1\n", "", ["key 'blurry'", "less than 1", "got 1"]),
    ],
)
def test_a_wrong_benchmark_is_refused(stream, learner, before, after, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment(stream(before, after), learner())
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def based(tmp_path, stream):
    """Write a benchmark recipe based on the stream, and load it."""

    def load(content, before="", after=""):
        stream(before, after)
        path = tmp_path / "based.toml"
        path.write_text(f'title = "Based"\nbase = "stream.toml"\n{content}')
        return load_experiment(str(path), "naive").benchmark

    return load


def test_a_recipe_takes_what_its_base_says(based, stream):
    base = load_experiment(stream(), "naive").benchmark
    assert based("") == base.model_copy(update={"title": "Based"})
    found = based("mask_size = 64\n[training]\nepochs = 9\n")
    training = base.training.model_copy(update={"epochs": 9})
    assert found == base.model_copy(
        update={"title": "Based", "mask_size": 64, "training": training}
    )


def test_the_merged_recipe_is_as_if_written_in_one(based, tmp_path):
    found = based("[training]\nlr = 2e-3\n[synthetic]\nseed = 4\n")
    path = tmp_path / "whole.toml"
    path.write_text(
        STREAM.replace('"Own"', '"Based"').replace("1e-3", "2e-3")
        + "[synthetic]\nseed = 4\n"
    )
    whole = load_experiment(str(path), "naive").benchmark
    assert found.model_dump() == whole.model_dump()


def test_title_and_published_are_not_inherited(based, tmp_path):
    assert based("", after=PERCENT.replace("84.2", "0.842")).published == ()
    (tmp_path / "based.toml").write_text('base = "stream.toml"\n')
    with pytest.raises(RecipeError, match=r"based.toml: key 'title': .*required"):
        load_experiment(str(tmp_path / "based.toml"), "naive")


@pytest.mark.parametrize(
    ("before", "content", "expected"),
    [
        ("", "n_experiences = 4\n", {"n_experiences": 4}),
        (
            "",
            'experiences = [["bolt"], ["gear"]]\n',
            {"experiences": (("bolt",), ("gear",))},
        ),
        (
            'class_order = ["gear", "bolt"]\n',
            'experiences = [["bolt"], ["gear"]]\n',
            {"experiences": (("bolt",), ("gear",))},
        ),
        (
            'class_order = ["gear", "bolt"]\n',
            'categories = ["bolt"]\n',
            {"categories": ("bolt",), "classes_per_experience": 2},
        ),
        (
            'categories = ["gear", "bolt"]\norder_seed = 3\n',
            'class_order = ["brush"]\n',
            {"class_order": ("brush",), "classes_per_experience": 2},
        ),
        # to shuffle is not to choose
        (
            'categories = ["gear", "bolt"]\n',
            "order_seed = 3\n",
            {
                "categories": ("gear", "bolt"),
                "order_seed": 3,
                "classes_per_experience": 2,
            },
        ),
        (
            'class_order = ["gear", "bolt"]\n',
            "dataset = 'visa'\n",
            {"classes_per_experience": 2},
        ),
        (
            'class_order = ["gear", "bolt"]\n',
            "dataset = 'synthetic'\n",
            {"class_order": ("gear", "bolt"), "classes_per_experience": 2},
        ),
    ],
)
def test_one_way_of_splitting_is_left(based, before, content, expected):
    found = based(content, before).model_dump(exclude_none=True)
    keys = (
        *("n_experiences", "classes_per_experience", "experiences"),
        *("categories", "class_order", "order_seed"),
    )
    assert {key: found[key] for key in keys if key in found} == expected


def test_another_data_set_takes_no_synthetic_images(based):
    found = based("dataset = 'visa'\n", after="[synthetic]\nseed = 3\n")
    assert (found.dataset, found.synthetic) == ("visa", None)


def test_a_base_may_have_a_base_and_lie_elsewhere(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.toml").write_text(
        'title = "Mine"\nbase = "synthetic_5x3"\nmask_size = 64\n'
    )
    path = tmp_path / "yours.toml"
    path.write_text('title = "Yours"\nbase = "deep/mine.toml"\nn_experiences = 3\n')
    found = load_experiment(str(path), "naive").benchmark
    shipped = load_experiment("synthetic_5x3", "naive").benchmark
    assert found == shipped.model_copy(
        update={
            "title": "Yours",
            "mask_size": 64,
            "n_experiences": 3,
            "classes_per_experience": None,
        }
    )


def test_a_model_of_another_type_replaces_that_of_the_base(based):
    found = based('[model]\ntype = "feature_gmm"\ncomponents = 4\n')
    assert found.model == FeatureGMMOptions(type="feature_gmm", components=4)
    assert based("[model]\nclamp = 1.5\n").model == FlowGMMOptions(
        couplings=3, clamp=1.5
    )


def test_options_of_another_backbone_are_not_inherited(based):
    features = (
        '[features]\nbackbone = "timm:resnet18"\ndtype = "float32"\n'
        "[features.options]\nstages = [1]\n"
    )
    found = based('[features]\nbackbone = "filterbank"\n', after=features).features
    assert (found.backbone, found.dtype, found.options) == ("filterbank", "float32", {})
    found = based("[features.options]\nrandom = true\n", after=features).features
    assert found.options == {"stages": [1], "random": True}


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("3", ["key 'base'", "the name of a benchmark", "got 3"]),
        ("'synthetic_5x2'", ["key 'base'", "unknown", "mean 'synthetic_5x3'"]),
        ("'nowhere.toml'", ["nowhere.toml", "cannot read the recipe"]),
        (
            "'based.toml'",
            ["key 'base'", "'based.toml' is based on this recipe in turn"],
        ),
        ("'stream.toml'", ["stream.toml", "unknown key 'colour'"]),
        ("'loop.toml'", ["loop.toml", "'based.toml' is based on this recipe in turn"]),
    ],
)
def test_a_wrong_base_is_refused(tmp_path, stream, base, words):
    stream("colour = 1\n")
    (tmp_path / "loop.toml").write_text('title = "Loop"\nbase = "./based.toml"\n')
    path = tmp_path / "based.toml"
    path.write_text(f'title = "Based"\nbase = {base}\n')
    with pytest.raises(RecipeError) as caught:
        load_experiment(str(path), "naive")
    message = str(caught.value).replace("'./", "'")
    for word in words:
        assert word in message
    assert "\n" not in message


def test_a_mistake_is_told_where_it_was_made(based):
    with pytest.raises(RecipeError, match=r"based\.toml: unknown key 'training.epoch'"):
        based("[training]\nepoch = 3\n")
    with pytest.raises(
        RecipeError, match=r"stream\.toml: unknown key 'training.epoch'"
    ):
        based("[training]\nepochs = 3\n", after="epoch = 3\n")


@pytest.mark.parametrize(
    ("override", "kept"),
    [
        ("order_seed=3", False),
        ("blurry=0.1", False),
        ("classes_per_experience=[10, 5]", False),
        ("training.epochs=3", True),
        ("mask_size=64", True),
    ],
)
def test_published_numbers_go_when_the_stream_is_another(stream, override, kept):
    path = stream(after=PERCENT.replace("84.2", "0.842"))
    found = load_experiment(path, "naive", [override]).benchmark.published
    assert [entry.method for entry in found] == ["X"] * kept


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["key 'title'", "required"]),
        ("title = 'x'\ndataset = 'mnist'\n", ["key 'dataset'", "mvtec_ad", "'mnist'"]),
        ("title = 'x'\ndataset = 'visa'\nmodel = 3\n", ["key 'model'", "got 3"]),
        (
            "title = 'x'\ndataset = 'visa'\n[model]\ntype = 'cnn'\n",
            ["'model'", "'cnn'", "feature_gmm, flow_gmm"],
        ),
        (
            "title = 'x'\ndataset = 'visa'\n[model]\ncomponents = 3\n",
            ["unknown key 'model.components'", "couplings"],
        ),
        (
            "title = 'x'\ndataset = 'visa'\n[synthetic]\nseed = 3\n",
            ["[synthetic] goes with dataset = 'synthetic'", "'visa'"],
        ),
        ("title = \n", ["not valid TOML", "line 1"]),
        # rather than that there is no data set
        ("title = 'x'\nbsae = 'synthetic_5x3'\n", ["'bsae' (did you mean 'base'?)"]),
        (
            "title = 'x'\ndataset = 'visa'\n[model]\ncategories_at_start = true\n"
            "center_init = 'data'\n",
            ["key 'model': categories_at_start", "'orthogonal', got 'data'"],
        ),
        (
            "title = 'x'\ndataset = 'visa'\n[model]\ncategories_at_start = true\n"
            "packnet = 'flow'\n",
            ["key 'model': categories_at_start cannot go with packnet", "leave one"],
        ),
    ],
)
def test_a_benchmark_that_is_no_recipe_is_refused(tmp_path, content, words):
    path = tmp_path / "odd.toml"
    path.write_text(content)
    with pytest.raises(RecipeError) as caught:
        load_experiment(str(path), "naive")
    for word in [str(path), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("mem_size = 3\n", ["learner.toml", "unknown key 'mem_size'", "plugins"]),
        ("plugins = 3\n", ["key 'plugins'", "got 3"]),
        ("[[plugins]]\nmem_size = 3\n", ["key 'plugins.0.type'", "required"]),
        ("[training]\nepoch = 3\n", ["learner.toml over", "'training.epoch'"]),
        ("[model]\ncomponents = 3\n", ["unknown key 'model.components'"]),
    ],
)
def test_a_wrong_strategy_is_refused(stream, learner, content, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment(stream(), learner(content))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs", ["expected section.key=value"]),
        ("=3", ["expected section.key=value"]),
        ("training.=3", ["expected section.key=value"]),
        ("trainer.epochs=3", ["unknown section 'trainer'", "training"]),
        ("training.epochs=many", ["key 'training.epochs'", "'many'"]),
        ("training.epochs.x=3", ["'epochs' holds no keys"]),
        ("model=3", ["key 'model'", "got 3"]),
        ("plugins.0.mem_size=3", ["has no plugins"]),
        ("model.type=feature_gm", ["unknown model 'feature_gm' (did you mean"]),
        ("n_tasks=3", ["unknown key 'n_tasks'"]),
        ("base=synthetic_5x3", ["a base belongs in a file", "TOML"]),
        ("base.title=x", ["a base belongs in a file"]),
    ],
)
def test_a_wrong_override_is_refused(stream, learner, override, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment(stream(), learner(), [override])
    for word in ["--set", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "plugins.1.mem_size=3",
        "plugins.1.storage_policy.max_size=3",
        "plugins.mem_size=3",
        "plugins.x.mem_size=3",
        "plugins.².mem_size=3",
        "plugins.0=3",
        "plugins=3",
    ],
)
def test_a_plugin_that_there_is_not_is_refused(stream, override):
    with pytest.raises(RecipeError, match=r"plugins\.N\.key=value with N from 0 to 0"):
        load_experiment(stream(), "replay", [override])


def test_an_override_below_a_value_is_refused(stream):
    with pytest.raises(RecipeError, match="--set .*'mem_size' holds no keys"):
        load_experiment(stream(), "replay", ["plugins.0.mem_size.x=3"])


@pytest.mark.parametrize(
    ("strategy", "override", "words"),
    [
        ("der", "model.center_init=data", ["categories_at_start", "'pattern'"]),
        ("packnet", "model.categories_at_start=true", ["packnet", "leave one"]),
    ],
)
def test_settings_of_the_model_that_exclude_each_other(strategy, override, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment("synthetic_5x3", strategy, [override])
    for word in [f"--set {override} over {strategy}: key 'model': ", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", ["packnet", "packnet_flow_only"])
def test_packnet_does_not_learn_a_blurry_stream(strategy):
    recipe = load_experiment("synthetic_5x3_blurry", strategy)
    with pytest.raises(RecipeError, match="cannot learn .* set blurry = 0"):
        check_strategy(recipe)
    check_strategy(load_experiment("synthetic_5x3_blurry", strategy, ["blurry=0"]))
    check_strategy(load_experiment("synthetic_5x3_blurry", "naive"))
    check_strategy(load_experiment("synthetic_5x3_blurry", "feature_gmm"))


@pytest.mark.parametrize(
    "strategy",
    ["center_freeze", "entropy_calibration", "hcl_generative_replay"],
)
def test_plugins_that_go_by_an_experiences_categories_refuse_blurry(strategy):
    recipe = load_experiment("synthetic_5x3_blurry", strategy)
    with pytest.raises(RecipeError, match="goes by the categories .* set blurry = 0"):
        check_strategy(recipe)
    check_strategy(load_experiment("synthetic_5x3_blurry", strategy, ["blurry=0"]))


@pytest.mark.parametrize(
    ("benchmark", "strategy", "words"),
    [
        ("synthetic_5x2", "naive", ["benchmark", "did you mean 'synthetic_5x3'"]),
        ("synthetic_5x3", "nave", ["unknown strategy", "did you mean 'naive'"]),
        ("synthetic_5x3", "nowhere.toml", ["nowhere.toml", "cannot read", "No such"]),
    ],
)
def test_an_unknown_name_is_refused(benchmark, strategy, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment(benchmark, strategy)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("strategy = 'avalanche.training.supervised.Nave'\n", ["no such class"]),
        ("strategy = 'os.system'\n", ["not a subclass of", "BaseTemplate"]),
        ("strategy = 'Naive'\n", ["no such class"]),
        ("[options]\nmomentum = 3\n", ["Naive takes no 'momentum'", "train_mb_size"]),
        (
            "[[plugins]]\ntype = 'collections.OrderedDict'\n",
            ["plugin", "not a subclass of", "BasePlugin"],
        ),
        (
            "[[plugins]]\ntype = 'avalanche.training.plugins.ReplayPlugin'\nsize = 3\n",
            ["ReplayPlugin takes no 'size'", "mem_size"],
        ),
        (
            "[[plugins]]\ntype = 'avalanche.training.plugins.EWCPlugin'\n",
            ["EWCPlugin needs ewc_lambda"],
        ),
        (REPLAY + "storage_policy = 3\n", ["storage_policy: expected a table", "3"]),
        (
            REPLAY + "[plugins.storage_policy]\ntype = 3\nmax_size = 4\n",
            ["ReplayPlugin: storage_policy", "expected a dotted path", "got 3"],
        ),
        (
            REPLAY + f"[plugins.storage_policy]\ntyp = '{POLICY}'\nmax_size = 4\n",
            ["ReplayPlugin: storage_policy: expected a table", "'type'", "'typ'"],
        ),
        (
            REPLAY + "[plugins.mem_size]\nmax_size = 4\n",
            ["ReplayPlugin: mem_size: expected a table", "got keys ['max_size']"],
        ),
        (
            REPLAY + "[plugins.storage_policy]\ntype = 'collections.OrderedDict'\n",
            ["storage_policy: type 'coll", "not a subclass of", "ExemplarsBuffer"],
        ),
        (
            REPLAY + f"[plugins.storage_policy]\ntype = '{POLICY}'\nsize = 4\n",
            ["storage policy ParametricBuffer takes no 'size'", "max_size"],
        ),
        (
            REPLAY + f"[plugins.storage_policy]\ntype = '{POLICY}'\nmax_size = 4\n"
            "selection_strategy = { a = 1 }\n",
            ["ParametricBuffer takes no table as selection_strategy"],
        ),
    ],
)
def test_classes_that_do_not_fit_are_refused(stream, learner, content, words):
    recipe = load_experiment(stream(), learner(content))
    with pytest.raises(RecipeError) as caught:
        check_strategy(recipe)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_storage_policy_is_built_from_its_table(stream, learner):
    table = f"[plugins.storage_policy]\ntype = '{POLICY}'\nmax_size = 4\n"
    recipe = load_experiment(stream(), learner(REPLAY + "mem_size = 4\n" + table))
    check_strategy(recipe)
    (replay,) = own_plugins(recipe)
    assert isinstance(replay.storage_policy, resolve(POLICY, (object,), "policy"))
    assert replay.storage_policy.max_size == replay.mem_size == 4


def test_an_assertion_without_words_is_told_by_its_line(stream, learner):
    table = f"[plugins.storage_policy]\ntype = '{POLICY}'\nmax_size = 5\n"
    recipe = load_experiment(stream(), learner(REPLAY + "mem_size = 4\n" + table))
    with pytest.raises(RecipeError, match=r"cannot be built: .*max_size.*mem_size"):
        own_plugins(recipe)


@pytest.mark.parametrize("path", [3, None, ["a"], {"type": "x"}])
def test_what_is_no_text_names_no_class(path):
    with pytest.raises(RecipeError, match="thing: expected a dotted path as text"):
        resolve(path, (dict,), "thing")


@pytest.mark.parametrize("path", ["", ".", "..x", "Naive", ".x", "os."])
def test_what_is_no_path_names_no_class(path):
    with pytest.raises(RecipeError, match="there is no such class"):
        resolve(path, (dict,), "thing")


def test_resolve_returns_the_class():
    found = resolve("collections.OrderedDict", (dict,), "thing")
    assert found.__name__ == "OrderedDict"


@pytest.fixture
def asked(monkeypatch):
    """Return where each name's class was looked for."""
    found, find = {}, Registry.find
    in_its_place = {"dataset": "visa", "backbone": "embedded", "model": "flow_gmm"}

    def noted(registry, name, folder=None):
        if name in registry.own:
            return find(registry, name)
        found.setdefault(name, folder)
        return find(registry, in_its_place[registry.sort])

    monkeypatch.setattr(Registry, "find", noted)
    return found


def test_names_are_looked_up_beside_the_file_that_states_them(tmp_path, asked):
    for name, content in (
        ("a/base.toml", 'title = "A"\ndataset = "mine.A"\n[model]\ntype = "mine.M"\n'),
        ("b/heir.toml", 'title = "B"\nbase = "../a/base.toml"\n[model]\nclamp = 1.5\n'),
        (
            "c/heir.toml",
            'title = "C"\nbase = "../b/heir.toml"\n[features]\nbackbone="o.B"',
        ),
        ("d/learner.toml", LEARNER + "[model]\ntype = 'mine.N'\n"),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    a, c, d = (tmp_path / name for name in "acd")
    stream = str(c / "heir.toml")
    recipe = load_experiment(stream, "naive")
    assert asked == {"mine.A": a, "mine.M": a, "o.B": c}
    named = ("dataset", "model.type", "features.backbone")
    assert [recipe.folders[name] for name in named] == [a, a, c]
    assert recipe.benchmark.model.type == "mine.M"
    recipe = load_experiment(stream, str(d / "learner.toml"))
    assert recipe.benchmark.model.type == "mine.N"
    assert recipe.folders["model.type"] == recipe.folder == d
    assert asked["mine.N"] == d
    assert "folders" not in recipe.model_dump()


def test_names_of_recipes_of_the_package_have_no_folder(asked):
    recipe = load_experiment("synthetic_5x3", "naive")
    assert recipe.folders == {}
    assert asked == {}


def test_another_type_set_takes_its_options_with_it(stream):
    found = load_experiment(
        stream(), "naive", ["model.components=3", "model.type=feature_gmm"]
    )
    assert found.benchmark.model == FeatureGMMOptions(components=3)
    assert found.benchmark.training.epochs == 0
    features = "[features.options]\nstrides = [8]\n"
    found = load_experiment(
        stream(after=features), "naive", ["features.backbone=filterbank"]
    )
    assert found.benchmark.features.options == {}


@pytest.mark.parametrize(
    ("before", "override", "words"),
    [
        ("", "dataset=mnist", ["--set dataset=mnist over", "key 'dataset': unknown"]),
        ("", "features.backbone=embeded", ["--set", "'features.backbone': unknown"]),
        ('[features]\nbackbone = "timm:"\n', "", ["stream.toml: key 'features.backbo"]),
    ],
)
def test_an_unknown_name_is_told_where_it_is_stated(stream, before, override, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment(stream(after=before), "naive", [override] if override else [])
    for word in words:
        assert word in str(caught.value)


def test_a_record_is_read_without_the_package_of_its_data_set(stream):
    recipe = load_experiment(stream(), "naive")
    found = recipe.benchmark.model_dump(mode="json") | {"dataset": "theirs"}
    assert type(recipe.benchmark).model_validate(found).dataset == "theirs"


def test_a_model_of_other_options_is_kept_whole(stream):
    """What is recorded, copied and sent to another process has the model's own keys."""
    recipe = load_experiment(stream(), "feature_gmm")
    assert recipe.benchmark.training.epochs == 0
    dumped = recipe.model_dump(mode="json")
    assert dumped["benchmark"]["model"]["components"] == 1
    assert type(recipe).model_validate(dumped) == recipe.model_copy(
        update={"folders": {}}
    )
    assert pickle.loads(pickle.dumps(recipe)) == recipe
