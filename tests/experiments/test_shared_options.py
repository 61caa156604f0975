"""Options of `gmm_alignment`: one owner, no contradiction, old records read."""

from __future__ import annotations

import json

import pytest

from avalanche_ad.errors import AvalancheADError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.experiments.configuration import (
    SHARED_OPTIONS,
    run_configuration,
    updated_configuration,
)
from avalanche_ad.experiments.studies.ablation import without
from avalanche_ad.recipes import list_recipes, load_experiment

STATED = {"components": 20, "statistics": "low_rank", "rank": 32}


def configured(*overrides):
    recipe = load_experiment("synthetic_2x2", "gmm_alignment", overrides)
    return json.loads(json.dumps(run_configuration(recipe, None)))


def shared(plugin):
    return {name: plugin[name] for name in SHARED_OPTIONS if name in plugin}


@pytest.mark.parametrize("strategy", list_recipes("strategies"))
def test_shipped_strategies_contradict_nothing(strategy):
    check_strategy(load_experiment("synthetic_2x2", strategy))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "plugins.2.components=3",
            "IncrementalMixturePlugin has components = 20 and GMMAlignmentPlugin has "
            "components = 3",
        ),
        (
            "plugins.1.statistics=full",
            "IncrementalMixturePlugin has statistics = 'low_rank' and "
            "StatisticsRehearsalPlugin has statistics = 'full'",
        ),
        ("plugins.2.rank=4", "rank = 32 and GMMAlignmentPlugin has rank = 4"),
        ("plugins.0.statistics=full", "rank = 32, which has no effect on statistics"),
        ("plugins.2.exemplars=4", "exemplars = 4 has no effect with source ="),
        ("plugins.2.steps=4", "steps = 4 has no effect with update = 'moments'"),
        ("plugins.2.lr=0.1", "lr = 0.1 has no effect with update = 'moments'"),
    ],
)
def test_what_would_be_ignored_is_refused_before_any_image(override, message):
    recipe = load_experiment("synthetic_2x2", "gmm_alignment", [override])
    with pytest.raises(AvalancheADError, match=message) as told:
        check_strategy(recipe)
    assert "\n" not in str(told.value)


def test_the_owner_s_options_are_everyone_s():
    overrides = ["plugins.0.components=3", "plugins.0.rank=5"]
    check_strategy(load_experiment("synthetic_2x2", "gmm_alignment", overrides))
    # and another may say what nobody said
    recipe = load_experiment("synthetic_2x2", "gmm_alignment", ["plugins.2.max_iter=9"])
    check_strategy(recipe)


def test_each_option_is_stated_once():
    plugins = configured()["strategy"]["plugins"]
    assert [shared(plugin) for plugin in plugins] == [STATED, {}, {}]


def test_records_in_which_all_said_the_same_are_read_as_this():
    now = configured()
    old = configured()
    for plugin in old["strategy"]["plugins"]:
        plugin |= STATED
    assert json.loads(json.dumps(updated_configuration(old))) == now
    said_otherwise = configured()
    said_otherwise["strategy"]["plugins"][2] |= STATED | {"rank": 16}
    assert updated_configuration(said_otherwise) != now


def test_a_plugin_taken_out_leaves_its_statistics_to_the_next():
    plugins = load_experiment("synthetic_2x2", "gmm_alignment").strategy.plugins
    for gone in plugins:
        left = without(plugins, gone)
        assert [p.type for p in left] == [p.type for p in plugins if p is not gone]
        assert [shared(p.arguments) for p in left] == [STATED, {}]
