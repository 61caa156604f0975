import pytest
import torch
from avalanche.training.plugins import EWCPlugin, LwFPlugin, ReplayPlugin
from avalanche.training.supervised import JointTraining

from avalanche_ad.errors import TrainingError
from avalanche_ad.experiments.accounting import _Count
from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    FrozenFlowPlugin,
    GMMAlignmentPlugin,
    IncrementalMixturePlugin,
)

SOURCES = ["statistics", "exemplars", "snapshot", "sdc", "ldc"]


def trained(make_strategy, stream, *plugins, lr=5e-3):
    torch.manual_seed(0)
    strategy = make_strategy(plugins=list(plugins), lr=lr)
    for experience in stream.train_stream:
        strategy.train(experience)
    return strategy


@pytest.mark.parametrize("source", ["statistics", "exemplars", "snapshot"])
@pytest.mark.parametrize("update", ["moments", "em", "gradient"])
def test_old_categories_are_likelier_than_without(
    make_strategy, long, source, update, images, likelihood
):
    options = {"exemplars": 20} if source == "exemplars" else {}
    options |= {"steps": 400} if update == "gradient" else {}
    plugin = GMMAlignmentPlugin(source, update, components=1, samples=500, **options)
    aligned = trained(make_strategy, long, plugin, lr=2e-2).model
    naive = trained(make_strategy, long, lr=2e-2).model
    for category in (0, 1):
        x = images(long, category)
        assert likelihood(aligned, x, category) > likelihood(naive, x, category)


@pytest.mark.parametrize("source", ["sdc", "ldc"])
def test_mixtures_move_with_latents_that_are_all_shifted(
    make_strategy, long, source, fake_strategy, images, likelihood
):
    plugin = GMMAlignmentPlugin(source, components=1, samples=500)
    strategy = make_strategy(plugins=[plugin])
    one, two = long.train_stream
    strategy.train(one)
    model = strategy.model
    before = [likelihood(model, images(long, c), c) for c in (0, 1)]
    plugin.before_training_exp(strategy)
    with torch.no_grad():
        for flow in model.flows:
            flow.blocks[-1].global_offset += 5
    shifted = [likelihood(model, images(long, c), c) for c in (0, 1)]
    assert max(shifted) < min(before) - 1
    model.add_categories([2, 3])
    plugin.after_training_exp(fake_strategy(model=model, adapted_dataset=two.dataset))
    after = [likelihood(model, images(long, c), c) for c in (0, 1)]
    assert after == pytest.approx(before, abs=1e-2)


@pytest.mark.parametrize("source", SOURCES)
def test_a_flow_that_stays_needs_no_alignment(
    make_strategy, long, source, images, likelihood
):
    options = {"exemplars": 40} if source == "exemplars" else {}
    plugin = GMMAlignmentPlugin(source, components=1, samples=4000, **options)
    strategy = make_strategy(plugins=[FrozenFlowPlugin(), plugin])
    one, two = long.train_stream
    strategy.train(one)
    before = [likelihood(strategy.model, images(long, c), c) for c in (0, 1)]
    strategy.train(two)
    after = [likelihood(strategy.model, images(long, c), c) for c in (0, 1)]
    assert after == pytest.approx(before, abs=0.1)


@pytest.mark.parametrize("components", [1, 2])
def test_all_categories_have_a_mixture(make_strategy, long, components, images):
    plugin = GMMAlignmentPlugin(components=components, samples=500)
    model = trained(make_strategy, long, plugin, CalibrationPlugin()).model
    for mixture in model.alignment.mixtures:
        assert mixture.known.all()
        assert mixture.means.shape[1] == components
    x = torch.cat([images(long, category) for category in range(4)])
    found = model.eval()(x).argmax(1)
    assert (found == torch.arange(4).repeat_interleave(40)).float().mean() > 0.9
    assert model.score(model(x), (4, 4)).image.isfinite().all()


@pytest.mark.parametrize(
    "others",
    [
        lambda: [ReplayPlugin(mem_size=8)],
        lambda: [EWCPlugin(ewc_lambda=1.0)],
        lambda: [LwFPlugin()],
    ],
)
def test_it_goes_with_stock_plugins(make_strategy, long, others):
    model = trained(make_strategy, long, GMMAlignmentPlugin(samples=300), *others())
    assert all(mixture.known.all() for mixture in model.model.alignment.mixtures)


def test_no_image_is_kept_unless_asked_for(make_strategy, long):
    plugin = GMMAlignmentPlugin(samples=300)
    model = trained(make_strategy, long, plugin).model
    assert not plugin.memory
    assert model.alignment.statistics.categories.tolist() == [0, 1, 2, 3]
    plugin = GMMAlignmentPlugin("exemplars", samples=300, exemplars=3)
    model = trained(make_strategy, long, plugin).model
    assert {key: len(x) for key, x in plugin.memory.items()} == dict.fromkeys(
        range(4), 3
    )
    for x in plugin.memory.values():
        assert x.untyped_storage().nbytes() == x.nbytes
    assert model.alignment.statistics is None


def test_alignment_draws_from_no_one_elses_generator(make_strategy, long):
    flows = [
        trained(make_strategy, long, *plugins).model.flows.state_dict()
        for plugins in ([], [GMMAlignmentPlugin(samples=300)])
    ]
    assert all(torch.equal(flows[0][name], flows[1][name]) for name in flows[0])


def test_accelerators_generators_stay(make_strategy, make_model, long, monkeypatch):
    plugins = [GMMAlignmentPlugin(samples=300), IncrementalMixturePlugin(samples=300)]
    strategy = trained(make_strategy, long, *plugins)
    state, seeds = strategy.model.state_dict(), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    strategy.adapted_dataset = long.train_stream[0].dataset
    for plugin in plugins:
        plugin.before_training_exp(strategy)
        plugin.after_training_exp(strategy)
    make_model(0).load_state_dict(state)
    assert not seeds


def test_samples_of_places_make_old_categories_likelier(
    make_strategy, long, images, likelihood
):
    plugin = GMMAlignmentPlugin(components=2, samples=500, statistics="place")
    aligned = trained(make_strategy, long, plugin, lr=2e-2).model
    naive = trained(make_strategy, long, lr=2e-2).model
    for category in (0, 1):
        x = images(long, category)
        assert likelihood(aligned, x, category) > likelihood(naive, x, category)


def test_few_samples_of_a_mean_field_give_gaussians_too(make_strategy, long):
    plugin = GMMAlignmentPlugin(components=6, samples=12, mean_field=True)
    model = trained(make_strategy, long, plugin).model
    assert model.alignment.mixtures[0].precision_roots.isfinite().all()


def test_a_few_images_that_come_back_are_not_learned_from(make_strategy, long):
    plugin = GMMAlignmentPlugin("exemplars", components=1, samples=300, exemplars=3)
    strategy = trained(make_strategy, long, plugin)
    before = {category: x.clone() for category, x in plugin.memory.items()}
    few = long.train_stream[0].dataset.subset([0, 1])
    strategy.adapted_dataset = few
    plugin.after_training_exp(strategy)
    assert all(torch.equal(plugin.memory[c], x) for c, x in before.items())


def old_state(model, samples, covariance, seed):
    """Return the state as it was saved while it held how the mixtures are made."""
    state = {
        name.replace("alignment.statistics.", "statistics."): value
        for name, value in model.state_dict().items()
        if not name.startswith("alignment.mixtures.") and "_extra_state" not in name
    }
    how = torch.tensor([samples, covariance, seed])
    return state | {"entropy_code": torch.tensor(0), "derivation": how}


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_mixtures_of_statistics_are_saved_as_they_are(
    make_strategy, make_model, long, covariance, monkeypatch
):
    plugin = GMMAlignmentPlugin(components=2, samples=300, covariance=covariance)
    model = trained(make_strategy, long, plugin).model
    form = ["full", "diagonal"].index(covariance)
    old = old_state(model, 300, form, plugin.seed)
    # a state of earlier versions: they are made once, and the same
    again = make_model(0)
    again.load_state_dict(old)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name

    def refuse(*args, **kwargs):
        raise AssertionError("something was computed")

    monkeypatch.setattr(type(model), "align_to_statistics", refuse)
    fresh = make_model(0)
    fresh.load_state_dict(model.state_dict())
    x = torch.randn(3, model.layout.size)
    assert torch.equal(fresh.eval()(x), model.eval()(x))


@pytest.mark.parametrize(
    "wrong", [[300, 9, 0], [0, 0, 0], [torch.nan, 0, 0], [300, 0, 0]]
)
def test_an_old_state_that_says_not_how_is_refused(
    make_strategy, make_model, long, wrong
):
    model = trained(make_strategy, long, GMMAlignmentPlugin(samples=300)).model
    state = old_state(model, 300, 0, 0) | {"derivation": torch.tensor(wrong)}
    if wrong == [300, 0, 0]:
        state = {k: v for k, v in state.items() if not k.startswith("statistics.")}
    other = make_model(2)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(RuntimeError, match="says not how|cannot convert float NaN"):
        other.load_state_dict(state)
    assert list(other.state_dict()) == list(before)
    assert all(torch.equal(other.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("source", ["exemplars", "sdc", "statistics"])
def test_other_mixtures_are_saved(make_strategy, make_model, long, source):
    update = None if source == "sdc" else "em"
    plugin = GMMAlignmentPlugin(source, update, components=2, samples=300)
    model = trained(make_strategy, long, plugin).model
    again = make_model(0)
    again.load_state_dict(model.state_dict())
    assert torch.equal(
        model.alignment.mixtures[0].means, again.alignment.mixtures[0].means
    )


def test_mixtures_that_go_on_learning_are_saved(make_strategy, make_model, long):
    plugins = [
        GMMAlignmentPlugin(components=2, samples=300),
        IncrementalMixturePlugin(components=2, samples=300, every=1000),
    ]
    model = trained(make_strategy, long, *plugins).model
    assert any(name.startswith("alignment.mixtures") for name in model.state_dict())


def test_what_is_made_anew_takes_no_memory(make_strategy, make_model, long):
    def parameters(model):
        count = _Count(10**9)
        count.follow(model, "parameters")
        return count.sizes["parameters"]

    plugin = GMMAlignmentPlugin(components=5, samples=300)
    model = trained(make_strategy, long, plugin).model
    made = sum(buffer.nbytes for buffer in model.alignment.mixtures.buffers())
    before = parameters(model)
    model.alignment.recipe = None
    assert parameters(model) == before + made
    fitted = GMMAlignmentPlugin("exemplars", components=5, samples=300)
    model = trained(make_strategy, long, fitted).model
    assert model.alignment.recipe is None


def test_seeds_follow_the_model(make_strategy, make_model, long):
    plugins = [GMMAlignmentPlugin(samples=300), GMMAlignmentPlugin(samples=300, seed=7)]
    for plugin, expected in zip(plugins, (5, 7), strict=True):
        strategy = make_strategy(model=make_model(seed=5), plugins=[plugin])
        strategy.train(long.train_stream[0])
        assert plugin.seed == strategy.model.alignment.statistics.seed == expected


def test_joint_training_is_aligned_on_all_images(make_strategy, long):
    strategy = make_strategy(
        cls=JointTraining, plugins=[GMMAlignmentPlugin(samples=300)]
    )
    strategy.train(long.train_stream)
    assert all(mixture.known.all() for mixture in strategy.model.alignment.mixtures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "images"}, "source as one of statistics, exemplars"),
        ({"update": "sgd"}, "update as one of moments, em"),
        ({"covariance": "tied"}, "covariance as one of full, diagonal, spherical"),
        ({"exemplars": 3}, "exemplars = 3 has no effect with source = 'statistics'"),
        ({"steps": 9}, "steps = 9 has no effect with update = 'moments'"),
        ({"update": "em", "lr": 0.1}, "lr = 0.1 has no effect with update = 'em'"),
        (
            {"source": "sdc", "update": "em"},
            "update = 'em' has no effect with source = 'sdc'",
        ),
        (
            {"source": "ldc", "exemplars": 2},
            "exemplars = 2 has no effect with source = 'ldc'",
        ),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(TrainingError, match=message):
        GMMAlignmentPlugin(**options)


def test_another_model_is_refused(fake_strategy):
    with pytest.raises(
        TrainingError, match="keeps statistics with a (FlowModel|ScopedEntropy), got a"
    ):
        GMMAlignmentPlugin().before_training_exp(
            fake_strategy(model=torch.nn.Linear(1, 1))
        )
