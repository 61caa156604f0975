"""Recipes are strict, and every one that is shipped loads."""

from __future__ import annotations

import pytest

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.experiments.recipe import (
    FeatureGMMRecipe,
    FlowGMMRecipe,
    list_recipes,
    load_experiment,
    read_toml,
    resolve,
)

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


def test_recipes_of_the_package_are_found():
    streams = {"synthetic_5x3", "synthetic_2x2", "mvtec_5x3", "surfaces_3x2"}
    assert streams <= set(list_recipes("benchmarks"))
    strategies = {"naive", "joint", "cumulative", "replay", "ewc", "lwf", "feature_gmm"}
    assert strategies <= set(list_recipes("strategies"))


@pytest.mark.parametrize("strategy", list_recipes("strategies"))
@pytest.mark.parametrize("benchmark", list_recipes("benchmarks"))
def test_every_shipped_pair_loads(benchmark, strategy):
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
    assert recipe.benchmark.model == FlowGMMRecipe(couplings=3, clamp=1.5)
    assert (recipe.benchmark.training.epochs, recipe.benchmark.training.lr) == (7, 1e-3)


def test_a_model_of_another_type_replaces_the_benchmarks(stream, learner):
    change = '[model]\ntype = "feature_gmm"\ncomponents = 4\n'
    recipe = load_experiment(stream(), learner(change))
    assert recipe.benchmark.model == FeatureGMMRecipe(type="feature_gmm", components=4)
    assert recipe.benchmark.training.epochs == 5


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
        ("title=On a whim", lambda r: r.benchmark.title, "On a whim"),
        ("options.eval_every=1", lambda r: r.strategy.options, {"eval_every": 1}),
        (
            "plugins.0.mem_size=7",
            lambda r: r.strategy.plugins[0].arguments,
            {"mem_size": 7},
        ),
    ],
)
def test_an_override_of_every_kind(stream, learner, override, found, expected):
    plugin = '[[plugins]]\ntype = "avalanche.training.plugins.ReplayPlugin"\n'
    recipe = load_experiment(stream(), learner(plugin), [override])
    assert found(recipe) == expected


def test_overrides_apply_in_order_and_after_the_strategy(stream, learner):
    recipe = load_experiment(
        stream(),
        learner("[training]\nepochs = 7\n"),
        ["training.epochs=8", "training.epochs=9"],
    )
    assert recipe.benchmark.training.epochs == 9


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("colour = 1\n", "", ["stream.toml", "unknown key 'colour'", "class_order"]),
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
    ],
)
def test_a_wrong_benchmark_is_refused(stream, learner, before, after, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment(stream(before, after), learner())
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["key 'title'", "required"]),
        ("title = 'x'\ndataset = 'mnist'\n", ["key 'dataset'", "mvtec_ad", "'mnist'"]),
        ("title = 'x'\ndataset = 'visa'\nmodel = 3\n", ["key 'model'", "got 3"]),
        (
            "title = 'x'\ndataset = 'visa'\n[model]\ntype = 'cnn'\n",
            ["'model'", "'cnn'", "'flow_gmm'"],
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
    ],
)
def test_a_benchmark_that_is_no_recipe_is_refused(tmp_path, content, words):
    path = tmp_path / "odd.toml"
    path.write_text(content)
    with pytest.raises(RecipeError) as caught:
        load_experiment(str(path), "naive")
    for word in [str(path), *words]:
        assert word in str(caught.value)


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
        ("model.type=feature_gmm", ["unknown key 'model.couplings'"]),
        ("n_tasks=3", ["unknown key 'n_tasks'"]),
    ],
)
def test_a_wrong_override_is_refused(stream, learner, override, words):
    with pytest.raises(RecipeError) as caught:
        load_experiment(stream(), learner(), [override])
    for word in ["--set", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "override", ["plugins.1.mem_size=3", "plugins.mem_size=3", "plugins.x.mem_size=3"]
)
def test_a_plugin_that_there_is_not_is_refused(stream, override):
    with pytest.raises(RecipeError, match=r"plugins\.N\.key=value with N from 0 to 0"):
        load_experiment(stream(), "replay", [override])


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
    ],
)
def test_classes_that_do_not_fit_are_refused(stream, learner, content, words):
    recipe = load_experiment(stream(), learner(content))
    with pytest.raises(RecipeError) as caught:
        check_strategy(recipe)
    for word in words:
        assert word in str(caught.value)


def test_resolve_returns_the_class():
    found = resolve("collections.OrderedDict", (dict,), "thing")
    assert found.__name__ == "OrderedDict"
