import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.supervised import Cumulative, JointTraining, Naive

from avalanche_ad.errors import TrainingError
from avalanche_ad.evaluation import anomaly_metrics
from avalanche_ad.evaluation.detection import UndefinedMetricWarning
from avalanche_ad.models.latents import latents_of
from avalanche_ad.training.plugins import CalibrationPlugin, GMMAlignmentPlugin


def maxima(model, dataset):
    """Return the largest log-likelihood per category and level, by hand."""
    model.eval()
    x = torch.stack([item[0] for item in dataset])
    y = torch.tensor([item[1] for item in dataset])
    with torch.no_grad():
        levels = model.log_likelihood_levels(latents_of(model(x)), y)
    return {
        c: torch.stack([level[y == c].max() for level in levels])
        for c in y.unique().tolist()
    }


def assert_calibrated(model, dataset):
    for category, expected in maxima(model, dataset).items():
        torch.testing.assert_close(
            model.level_maximum[category], expected, rtol=1e-4, atol=1e-5
        )


def test_constants_are_of_the_experiences_own_training_images(stream, make_strategy):
    first, second = stream().train_stream
    strategy = make_strategy(plugins=[CalibrationPlugin(100)])
    strategy.train(first)
    assert_calibrated(strategy.model, first.dataset)
    kept = strategy.model.level_maximum[:2].clone()
    assert bool(strategy.model.level_maximum[2:].isnan().all())
    strategy.train(second)
    assert_calibrated(strategy.model, second.dataset)
    assert torch.equal(strategy.model.level_maximum[:2], kept)
    now = maxima(strategy.model, first.dataset)
    assert not torch.allclose(now[0], kept[0])  # the flow has moved, they have not


def test_cumulative_training_calibrates_all_it_trains_on(stream, make_strategy):
    experiences = stream().train_stream
    strategy = make_strategy(Cumulative, plugins=[CalibrationPlugin(100)])
    for experience in experiences:
        strategy.train(experience)
    for experience in experiences:
        assert_calibrated(strategy.model, experience.dataset)


def test_joint_training_calibrates_all_categories(stream, make_strategy):
    experiences = stream().train_stream
    strategy = make_strategy(JointTraining, plugins=[CalibrationPlugin(100)])
    strategy.train(experiences)
    for experience in experiences:
        assert_calibrated(strategy.model, experience.dataset)


def test_test_images_play_no_part(stream, make_strategy):
    benchmark = stream()
    strategy = make_strategy(plugins=[CalibrationPlugin(100)])
    strategy.train(benchmark.train_stream[0], eval_streams=[[benchmark.test_stream[0]]])
    before = strategy.model.level_maximum.clone()
    strategy.eval(benchmark.test_stream[0])
    after = strategy.model.level_maximum
    assert torch.equal(before.nan_to_num(), after.nan_to_num())
    assert_calibrated(strategy.model, benchmark.train_stream[0].dataset)


def test_no_more_images_than_asked(stream, make_strategy):
    passed = []

    class Counting(CalibrationPlugin):
        def _batches(self, *arguments):
            for x, y in super()._batches(*arguments):
                passed.extend(y.tolist())
                yield x, y

    strategy = make_strategy(plugins=[Counting(3)])
    strategy.train(stream().train_stream[0])
    assert sorted(passed) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored(stream, make_strategy, probe, training):
    class Mode(CalibrationPlugin):
        def after_training_exp(self, strategy, *args, **kwargs):
            strategy.model.train(training)
            super().after_training_exp(strategy, *args, **kwargs)

    after = probe("after_training_exp", lambda s: s.model.training)
    strategy = make_strategy(plugins=[Mode(), after])
    strategy.train(stream().train_stream[0])
    assert after.seen == [training]


def test_replayed_images_keep_old_constants_up_to_date(stream, make_strategy):
    first, second = stream().train_stream
    replay = ReplayPlugin(mem_size=8)
    strategy = make_strategy(Naive, plugins=[CalibrationPlugin(100), replay])
    strategy.train(first)
    memory = list(replay.storage_policy.buffer)
    strategy.train(second)
    assert_calibrated(strategy.model, memory)


def test_other_models_are_left_alone(fake_strategy):
    model = torch.nn.Linear(2, 2)
    CalibrationPlugin().after_training_exp(fake_strategy(model=model))


@pytest.mark.parametrize("experience", [0, 1])
def test_a_model_that_diverged_is_told_of(stream, make_strategy, experience):
    strategy = make_strategy(plugins=[ReplayPlugin(mem_size=8), CalibrationPlugin()])
    for index, learned in enumerate(stream().train_stream):
        if index == experience:
            for group in strategy.optimizer.param_groups:
                group["lr"] = 1e30
            reason = f"after experience {index}: .* lower the learning rate"
            with pytest.raises(TrainingError, match=reason):
                strategy.train(learned)
            break
        strategy.train(learned)


def test_evaluation_within_training_is_calibrated(stream, make_strategy):
    benchmark = stream()
    (metrics,) = anomaly_metrics([f"category {index}" for index in range(4)])
    strategy = make_strategy(
        plugins=[CalibrationPlugin()],
        evaluator=EvaluationPlugin(metrics, loggers=[], strict_checks=False),
        eval_every=1,
    )
    with pytest.warns(UndefinedMetricWarning):  # the test stream is all normal
        strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream])
    # nothing is known before the first epoch; then 3 epochs of 4 categories
    steps = [entry["step"] for entry in metrics.history]
    assert steps == [3] * 4 + [6] * 4 + [9] * 4


def images_of(experience):
    x = torch.stack([item[0] for item in experience.dataset])
    return x, torch.tensor([item[1] for item in experience.dataset])


def test_thresholds_are_of_all_normals_each_held_out(stream, make_strategy):
    benchmark = stream()
    plugin = CalibrationPlugin(5, mask_size=4, quantile=0.75, folds=3)
    strategy = make_strategy(Cumulative, plugins=[plugin])
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert sorted(plugin.thresholds) == sorted(plugin.held_out) == [0, 1, 2, 3]
    for experience in benchmark.train_stream:
        x, y = images_of(experience)
        for category in y.unique().tolist():
            own = x[y == category]
            expected = strategy.model.held_out_scores(
                category, own, (4, 4), folds=3, images=5
            )
            held_out = plugin.held_out[category]
            assert held_out.scores == sorted(expected.tolist())
            assert len(held_out) == 12
            assert plugin.thresholds[category] == held_out.threshold(0.75)
            assert sum(s >= plugin.thresholds[category] for s in held_out.scores) == 2


def test_thresholds_of_categories_that_are_gone_stay_as_they_were(
    stream, make_strategy
):
    first, second = stream().train_stream
    plugin = CalibrationPlugin(100, mask_size=4)
    strategy = make_strategy(plugins=[plugin])
    strategy.train(first)
    before = dict(plugin.thresholds)
    strategy.train(second)
    assert sorted(before) == [0, 1]
    assert sorted(plugin.thresholds) == [0, 1, 2, 3]
    assert {c: plugin.thresholds[c] for c in before} == before


def test_images_that_a_memory_repeats_count_once(stream, make_strategy):
    first, second = stream().train_stream
    replay = ReplayPlugin(mem_size=8, batch_size_mem=8)
    # of three quarters, for which 3 images are enough
    plugin = CalibrationPlugin(100, mask_size=4, quantile=0.75)
    strategy = make_strategy(plugins=[plugin, replay])
    strategy.train(first)
    assert [len(plugin.held_out[c]) for c in (0, 1)] == [12, 12]
    memory = [category for _, category, *_ in replay.storage_policy.buffer]
    strategy.train(second)
    found = [len(plugin.held_out[c]) for c in range(4)]
    assert found == [memory.count(0), memory.count(1), 12, 12]


def test_what_follows_does_not_depend_on_whether_thresholds_are_taken(
    stream, make_strategy
):
    ends = []
    for size in (None, 4):
        torch.manual_seed(0)
        strategy = make_strategy(plugins=[CalibrationPlugin(5, mask_size=size)])
        for experience in stream().train_stream:
            strategy.train(experience)
        ends.append((strategy.model.state_dict(), torch.get_rng_state()))
    (one, drawn), (other, drawn_too) = ends
    assert torch.equal(drawn, drawn_too)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_an_evaluation_within_training_takes_no_thresholds(stream, make_strategy):
    class Counting(CalibrationPlugin):
        taken = 0

        def _hold_out(self, *arguments):
            self.taken += 1
            super()._hold_out(*arguments)

    benchmark = stream()
    plugin = Counting(mask_size=4)
    strategy = make_strategy(plugins=[plugin], eval_every=1)
    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream[:1]])
    assert plugin.taken == 2


def test_a_copy_among_the_training_images_counts_once(
    stream, train_stream, make_strategy
):
    x, y = images_of(stream().train_stream[0])
    (copied,) = train_stream(
        (torch.cat([x, x[2:3] + 1e-4]), torch.cat([y, y[2:3]])),
    )
    plugin = CalibrationPlugin(100, mask_size=4)
    make_strategy(plugins=[plugin]).train(copied)
    assert [len(plugin.held_out[c]) for c in (0, 1)] == [12, 12]


def drawn(category, count, seed=0):
    generator = torch.Generator().manual_seed(100 * seed + category)
    point = 3 * torch.randn(1, 6, generator=torch.Generator().manual_seed(category))
    x = point + 0.5 * torch.randn(count, 5, 6, generator=generator)
    return x.flatten(1), torch.full((count,), category)


def together(*parts):
    return tuple(torch.cat(of) for of in zip(*parts, strict=True))


@pytest.mark.parametrize("strays", [1, 2, 3, 18])
def test_too_few_images_take_no_scores_place(train_stream, make_strategy, strays):
    first, second = train_stream(
        together(drawn(0, 34), drawn(1, 34)),
        together(drawn(2, 34), drawn(3, 34), drawn(0, strays, 1)),
    )
    plugin = CalibrationPlugin(mask_size=4)
    strategy = make_strategy(plugins=[plugin])
    strategy.train(first)
    before, threshold = plugin.held_out[0].scores, plugin.thresholds[0]
    strategy.train(second)
    assert plugin.held_out[0].scores == before
    assert plugin.thresholds[0] == threshold
    assert [len(plugin.held_out[c]) for c in (2, 3)] == [34, 34]
    assert not any(plugin.density_held_out.values())


def test_a_memory_of_one_image_a_category_takes_no_threshold_away(
    stream, make_strategy
):
    plugin = CalibrationPlugin(mask_size=4)
    strategy = make_strategy(plugins=[plugin, ReplayPlugin(mem_size=2)])
    first, second = stream().train_stream
    strategy.train(first)
    before = dict(plugin.thresholds)
    strategy.train(second)
    assert sorted(plugin.thresholds) == [0, 1, 2, 3]
    assert {c: plugin.thresholds[c] for c in before} == before


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [([], 20), ([GMMAlignmentPlugin(components=1, samples=200)], 34)],
)
def test_enough_images_take_the_place_of_scores_that_the_flow_has_left(
    train_stream, make_strategy, plugins, expected
):
    first, second = train_stream(
        together(drawn(0, 34), drawn(1, 34)),
        together(drawn(2, 34), drawn(3, 34), drawn(0, 20, 1)),
    )
    plugin = CalibrationPlugin(mask_size=4)
    strategy = make_strategy(plugins=[*plugins, plugin])
    strategy.train(first)
    strategy.train(second)
    assert len(plugin.held_out[0]) == expected
    # a mixture from statistics is held out, a flow is not
    assert set(plugin.density_held_out.values()) == {bool(plugins)}


def test_as_many_images_as_before_take_their_place(train_stream, make_strategy):
    first, second = train_stream(
        together(drawn(0, 5), drawn(1, 5)),
        together(drawn(2, 5), drawn(0, 6, 1)),
    )
    plugin = CalibrationPlugin(mask_size=4)
    strategy = make_strategy(plugins=[plugin])
    strategy.train(first)
    strategy.train(second)
    assert [len(plugin.held_out[c]) for c in range(3)] == [6, 5, 5]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [1, 2]),  # the product from the second category on
        ({"score_kind": "likelihood"}, [0, 1, 2]),
    ],
)
def test_scores_of_another_kind_than_the_models_are_dropped(
    train_stream, make_strategy, make_model, options, kept
):
    plugin = CalibrationPlugin(mask_size=4)
    strategy = make_strategy(model=make_model(0, **options), plugins=[plugin])
    for last, experience in enumerate(train_stream(*(drawn(c, 8) for c in range(3)))):
        strategy.train(experience)
        assert last in plugin.held_out
    for found in (plugin.held_out, plugin.thresholds, plugin.density_held_out):
        assert sorted(found) == kept
