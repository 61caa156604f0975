"""The mixture learns by statistics while the flow learns by gradient."""

import pytest
import torch
from avalanche.training.plugins import EWCPlugin, LwFPlugin, ReplayPlugin
from avalanche.training.supervised import JointTraining

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.feature_gmm import FeatureGMM
from avalanche_ad.training.plugins import (
    GMMAlignmentPlugin,
    IncrementalMixturePlugin,
    StatisticsRehearsalPlugin,
)

NEVER = 10**9


def mixture_plugin(**options):
    return IncrementalMixturePlugin(
        **({"components": 1, "samples": 2000, "every": 2} | options)
    )


@pytest.fixture
def rotation(make_model):
    return lambda **options: make_model(flow_start="rotation", **options)


def train(make_strategy, model, stream, *plugins, lr=5e-3, count=2, epochs=3):
    torch.manual_seed(0)
    strategy = make_strategy(
        model=model, plugins=list(plugins), lr=lr, train_epochs=epochs
    )
    for experience in list(stream.train_stream)[:count]:
        strategy.train(experience)
    return strategy


def test_a_rotation_starts_as_the_flow_free_reference(
    make_strategy, rotation, long, layout, images, likelihood
):
    model = rotation()
    alignment = GMMAlignmentPlugin(components=1, samples=50)
    train(make_strategy, model, long, mixture_plugin(), alignment, lr=0.0, count=1)
    reference = FeatureGMM(layout, 4)
    for category in (0, 1):
        x = images(long, category)
        reference.fit_category(category, x)
        expected = likelihood(reference, x, category)
        assert likelihood(model, x, category) == pytest.approx(expected, abs=2e-3)


def test_the_flow_learns_what_a_gaussian_cannot_say(
    make_strategy, rotation, stream, images, likelihood
):
    bent = stream(train=60, bent=True)

    def reached(lr):
        model = rotation()
        train(make_strategy, model, bent, mixture_plugin(), lr=lr, count=1, epochs=20)
        return sum(likelihood(model, images(bent, c), c) for c in (0, 1))

    assert reached(1e-2) > reached(0.0) + 0.05


def test_the_mixture_follows_the_flow(
    make_strategy, rotation, long, images, likelihood
):
    def reached(*plugins):
        model = rotation()
        train(make_strategy, model, long, *plugins, lr=3e-2, count=1)
        return sum(likelihood(model, images(long, c), c) for c in (0, 1))

    followed = reached(mixture_plugin(every=1, step_offset=1.0))
    anew = reached(
        mixture_plugin(every=1, step_offset=1.0),
        GMMAlignmentPlugin(components=1, samples=5000),
    )
    assert followed == pytest.approx(anew, abs=0.1)


@pytest.mark.parametrize("center_lr", [0.0, 1e-3])
def test_gradients_reach_the_means_only_where_asked(
    make_strategy, rotation, long, center_lr, probe
):
    def held(strategy):
        return strategy.model.alignment.mixtures[0].means.detach().clone()

    def gradient(strategy):
        return strategy.model.alignment.mixtures[0].means.grad

    start, step = probe("before_training_iteration", held), probe("after_update", held)
    after = probe("before_update", gradient)
    plugin = mixture_plugin(every=NEVER, center_lr=center_lr)
    model = rotation()
    train(make_strategy, model, long, plugin, start, step, after, count=1)
    moved = [not torch.equal(a, b) for a, b in zip(start.seen, step.seen, strict=True)]
    assert all(moved) if center_lr else not any(moved)
    assert after.seen == [None] * len(after.seen)
    assert not model.alignment.mixtures[0].means.requires_grad


def test_mixtures_move_every_so_many_steps(make_strategy, rotation, long, probe):
    def held(strategy):
        return strategy.model.alignment.mixtures[0].means.detach().clone()

    seen = probe("after_training_iteration", held)
    train(make_strategy, rotation(), long, mixture_plugin(every=3), seen, count=1)
    moved = [
        not torch.equal(a, b)
        for a, b in zip(seen.seen[:-1], seen.seen[1:], strict=True)
    ]
    # after steps 3, 6, 9, …; seen.seen[0] is after the first
    assert moved == [(step + 2) % 3 == 0 for step in range(len(moved))]


def test_rehearsal_of_statistics_holds_old_categories(
    make_strategy, rotation, stream, images, likelihood
):
    bent = stream(train=60, bent=True)

    def forgotten(*plugins):
        values = []
        for count in (1, 2):
            model = rotation()
            train(make_strategy, model, bent, *plugins, lr=1e-2, count=count, epochs=12)
            values.append(sum(likelihood(model, images(bent, c), c) for c in (0, 1)))
        return values[0] - values[1]

    alone = forgotten(mixture_plugin())
    rehearsed = forgotten(
        mixture_plugin(), StatisticsRehearsalPlugin(components=1, batch_size=16)
    )
    assert alone > 0.1
    assert rehearsed < 0.6 * alone


@pytest.mark.parametrize(
    "other",
    [
        lambda: ReplayPlugin(mem_size=20),
        lambda: EWCPlugin(1.0),
        lambda: LwFPlugin(),
        lambda: GMMAlignmentPlugin(components=1, samples=500),
    ],
)
def test_works_beside_other_plugins(make_strategy, rotation, long, other):
    model = rotation()
    train(make_strategy, model, long, mixture_plugin(), other())
    assert model.alignment.mixtures[0].known.all()


def test_joint_training(make_strategy, rotation, long):
    model = rotation()
    strategy = make_strategy(JointTraining, model=model, plugins=[mixture_plugin()])
    strategy.train(long.train_stream)
    assert model.alignment.mixtures[0].known.all()


def test_another_model_is_refused(fake_strategy):
    with pytest.raises(TrainingError, match="flow_gmm"):
        mixture_plugin().before_training_exp(fake_strategy(model=torch.nn.Linear(1, 1)))
