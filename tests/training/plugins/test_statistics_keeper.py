"""One owner for the options of the statistics that several plugins share."""

import inspect
from itertools import permutations

import pytest
import torch

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians import PlaceStatistics
from avalanche_ad.training import plugins as exported
from avalanche_ad.training.plugins import (
    DriftRegularizationPlugin,
    GMMAlignmentPlugin,
    IncrementalMixturePlugin,
    StatisticsRehearsalPlugin,
)
from avalanche_ad.training.plugins.statistics_keeper import (
    StatisticsKeeper,
    agreed_options,
)

SMALL = {
    DriftRegularizationPlugin: {"pool_size": 16, "batch_size": 4},
    GMMAlignmentPlugin: {"samples": 100},
    IncrementalMixturePlugin: {"samples": 100, "every": 2},
    StatisticsRehearsalPlugin: {"pool_size": 4, "batch_size": 2},
}
QUICK = {"max_positions": 60, "max_iter": 2}


def made(cls, **options):
    return cls(**SMALL[cls], **options)


def learned(make_strategy, stream, *plugins, model=None):
    torch.manual_seed(0)
    strategy = make_strategy(model=model, plugins=list(plugins), train_epochs=1)
    strategy.train(stream.train_stream[0])
    return strategy.model


def states(model):
    return {
        part: {name: value.clone() for name, value in module.state_dict().items()}
        for part, module in (
            ("statistics", model.alignment.statistics),
            ("aligned", model.alignment.mixtures),
        )
    }


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(
        value.dtype == theirs[name].dtype and torch.equal(value, theirs[name])
        for name, value in ours.items()
    )


OPTIONS = {
    "components": 2,
    "statistics": "diagonal",
    "mean_field": True,
    "precision": "float32",
    "shrinkage": 0.3,
    "max_positions": 30,
    "max_iter": 1,
    "seed": 11,
}


@pytest.mark.parametrize("owner", range(3))
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_takes_effect_whoever_states_it(
    make_strategy, stream, name, owner
):
    """The three plugins of `gmm_alignment`, of which one states it."""
    classes = (IncrementalMixturePlugin, StatisticsRehearsalPlugin, GMMAlignmentPlugin)
    short = stream(train=20)
    base = {key: value for key, value in QUICK.items() if key != name}
    plain = {"components": 3} | base
    plain.pop(name, None)

    def of(**stated):
        three = [
            made(cls, **(stated if number == owner else {}))
            for number, cls in enumerate(classes)
        ]
        return states(learned(make_strategy, short, *three)), three

    changed, three = of(**plain, **{name: OPTIONS[name]})
    unchanged, _ = of(**plain)
    assert not equal(changed["statistics"], unchanged["statistics"])
    assert not equal(changed["aligned"], unchanged["aligned"])
    assert {plugin.option(name) for plugin in three} == {OPTIONS[name]}
    # the same as if all of them had said it
    alike = [made(cls, **plain, **{name: OPTIONS[name]}) for cls in classes]
    every = states(learned(make_strategy, short, *alike))
    assert equal(every["statistics"], changed["statistics"])
    assert equal(every["aligned"], changed["aligned"])


@pytest.mark.parametrize("cls", SMALL)
def test_a_plugin_alone_is_its_own_owner(make_strategy, stream, cls):
    plugin = made(cls, components=2, statistics="low_rank", rank=3, **QUICK)
    model = learned(make_strategy, stream(train=20), plugin)
    kept = model.alignment.statistics
    assert (kept.components, kept.covariance, kept.rank) == (2, "low_rank", 3)
    plain = made(cls, **QUICK)
    kept = learned(make_strategy, stream(train=20), plain).alignment.statistics
    assert (kept.components, kept.covariance) == (10, "full")


def test_the_rank_takes_effect(make_strategy, stream):
    kept = [
        states(
            learned(
                make_strategy,
                stream(train=20),
                made(
                    GMMAlignmentPlugin,
                    components=1,
                    statistics="low_rank",
                    rank=rank,
                    **QUICK,
                ),
            )
        )
        for rank in (1, 2)
    ]
    assert not equal(kept[0]["statistics"], kept[1]["statistics"])
    assert not equal(kept[0]["aligned"], kept[1]["aligned"])


@pytest.mark.parametrize(("first", "second"), [*permutations(SMALL, 2)])
def test_plugins_that_contradict_each_other_learn_nothing(
    make_strategy, stream, first, second
):
    pair = made(first, components=2), made(second, components=3)
    strategy = make_strategy(plugins=list(pair), train_epochs=1)
    before = {name: x.clone() for name, x in strategy.model.state_dict().items()}
    expected = (
        f"{first.__name__} has components = 2 and {second.__name__} has components = 3"
    )
    with pytest.raises(TrainingError, match=expected):
        strategy.train(stream().train_stream[0])
    flows = [name for name in before if name.startswith("flows.")]
    assert all(torch.equal(strategy.model.state_dict()[n], before[n]) for n in flows)
    assert strategy.model.alignment.statistics is None
    alike = made(first, components=2), made(second, components=2)
    assert agreed_options(alike, alike[1]) == {"components": 2}


def test_false_and_zero_are_stated_too():
    pair = (
        made(GMMAlignmentPlugin, mean_field=False, seed=0),
        made(StatisticsRehearsalPlugin, mean_field=True),
    )
    with pytest.raises(TrainingError, match="mean_field = False and .* = True"):
        agreed_options(pair, pair[0])
    pair = made(GMMAlignmentPlugin, seed=0), made(StatisticsRehearsalPlugin, seed=1)
    with pytest.raises(TrainingError, match="seed = 0 and .* seed = 1"):
        agreed_options(pair, pair[0])


@pytest.mark.parametrize("form", [None, "full", "diagonal"])
def test_a_rank_without_effect_is_refused(form):
    pair = (
        made(GMMAlignmentPlugin, rank=8),
        made(StatisticsRehearsalPlugin, statistics=form),
    )
    for plugin in pair:
        with pytest.raises(TrainingError, match="rank = 8, which has no effect"):
            agreed_options(pair, plugin)
    low = (*pair[:1], made(StatisticsRehearsalPlugin, statistics="low_rank"))
    assert agreed_options(low, low[0])["rank"] == 8


@pytest.mark.parametrize("source", ["exemplars", "snapshot", "sdc", "ldc"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statistics", "full"),
        ("rank", 3),
        ("mean_field", False),
        ("precision", "float32"),
        ("max_positions", 50),
        ("max_iter", 3),
    ],
)
def test_an_alignment_without_statistics_has_no_options_of_them(source, name, value):
    plugin = made(GMMAlignmentPlugin, source=source, **{name: value})
    with pytest.raises(TrainingError, match=f"keeps no statistics, so {name} = "):
        agreed_options([plugin], plugin)


def test_what_does_not_share_need_not_agree(make_strategy, stream):
    """Mixtures fitted to images have a number of Gaussians of their own."""
    rehearsal = made(StatisticsRehearsalPlugin, components=3, **QUICK)
    alignment = made(GMMAlignmentPlugin, source="exemplars", components=2)
    model = learned(make_strategy, stream(train=20), rehearsal, alignment)
    assert model.alignment.statistics.components == 3
    assert model.alignment.mixtures[0].means.shape[1] == 2
    # but there is one mixture of a category
    both = [made(IncrementalMixturePlugin, components=3), alignment]
    with pytest.raises(TrainingError, match="components = 3 and .* components = 2"):
        agreed_options(both, alignment)


def test_a_model_that_has_learned_keeps_its_form(make_strategy, make_model, stream):
    own = {"components": 2, "statistics": "low_rank", "rank": 3}
    own |= {"precision": "float32"}
    first = made(GMMAlignmentPlugin, **own, **QUICK)
    short = stream(train=20)
    state = learned(make_strategy, short, first).state_dict()

    def loaded():
        model = make_model(0)
        model.load_state_dict(state)
        return model

    silent = made(IncrementalMixturePlugin, **QUICK)
    learned(make_strategy, short, silent, model=loaded())
    assert [silent.option(name) for name in own] == list(own.values())
    learned(make_strategy, short, made(GMMAlignmentPlugin, **own), model=loaded())
    # what goes with a form that the model alone states
    learned(make_strategy, short, made(GMMAlignmentPlugin, rank=3), model=loaded())
    for name, other in (
        ("components", 3),
        ("statistics", "diagonal"),
        ("rank", 2),
        ("precision", "float16"),
    ):
        plugin = made(GMMAlignmentPlugin, **{name: other})
        with pytest.raises(TrainingError, match=f"has {name} = {other!r}, and what"):
            learned(make_strategy, short, plugin, model=loaded())
    plugin = made(GMMAlignmentPlugin, source="sdc", components=5)
    with pytest.raises(TrainingError, match="has components = 5, and what the model"):
        learned(make_strategy, short, plugin, model=loaded())


def test_gradient_steps_are_taken_whatever_the_source(make_strategy, stream):
    def means(steps, source):
        torch.manual_seed(0)
        plugin = GMMAlignmentPlugin(
            source, "gradient", steps=steps, lr=0.1, components=1, samples=100
        )
        strategy = make_strategy(plugins=[plugin], train_epochs=1)
        for experience in stream(train=20).train_stream:
            strategy.train(experience)
        return strategy.model.alignment.mixtures[0].means[:2]

    for source in ("statistics", "exemplars", "snapshot"):
        assert not torch.equal(means(1, source), means(20, source)), source


def test_experiments_know_what_is_shared():
    from avalanche_ad.experiments.configuration import SHARED_OPTIONS, SHARING_PLUGINS

    parameters = inspect.signature(StatisticsKeeper).parameters
    assert set(SHARED_OPTIONS) == set(parameters) - {"others"}
    sharing = {
        name
        for name in exported.__all__
        if issubclass(getattr(exported, name), StatisticsKeeper)
    }
    paths = {f"avalanche_ad.training.plugins.{name}" for name in sharing}
    assert set(SHARING_PLUGINS) == paths | sharing


@pytest.mark.parametrize("cls", SMALL)
def test_statistics_may_know_the_place(make_strategy, stream, make_model, cls):
    plugin = made(cls, statistics="place", components=2, **QUICK)
    model = learned(make_strategy, stream(train=20), plugin)
    kept = model.alignment.statistics
    assert isinstance(kept, PlaceStatistics)
    assert (kept.form, kept.components, kept.precision) == ("place", 2, "float16")
    twin = make_model(0)
    twin.load_state_dict(model.state_dict())
    assert isinstance(twin.alignment.statistics, PlaceStatistics)
    for level in model.alignment.mixtures:
        assert bool(level.precision_roots.isfinite().all())
    # it goes on with these, and with no others
    short = stream(train=20)
    torch.manual_seed(0)
    strategy = make_strategy(model=twin, plugins=[made(cls, **QUICK)], train_epochs=1)
    strategy.train(short.train_stream[1])
    assert twin.alignment.statistics.categories.tolist() == [0, 1, 2, 3]
    other = make_strategy(model=twin, plugins=[made(cls, statistics="full")])
    with pytest.raises(TrainingError, match="statistics = 'full', and what the model"):
        other.train(short.train_stream[1])


def test_a_mean_field_is_no_option_of_statistics_that_know_the_place():
    plugin = made(GMMAlignmentPlugin, statistics="place", mean_field=True)
    with pytest.raises(TrainingError, match="mean_field = True, which has no effect"):
        agreed_options([plugin], plugin)
