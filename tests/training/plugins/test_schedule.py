import pytest

from avalanche_ad.training import warmup_cosine
from avalanche_ad.training.plugins import WarmupCosinePlugin


def rates(strategy):
    return [group["lr"] for group in strategy.optimizer.param_groups]


def test_every_experience_starts_the_schedule_anew(stream, make_strategy, probe):
    seen = probe("before_update", rates)
    plugin = WarmupCosinePlugin(warmup_epochs=1.0, final_factor=0.1)
    strategy = make_strategy(plugins=[plugin, seen], lr=0.01, train_epochs=4)
    strategy.optimizer.param_groups[1]["lr"] = 0.03
    for experience in stream().train_stream:
        strategy.train(experience)
    steps = 4 * 3  # 24 images in minibatches of 8
    factors = [warmup_cosine(step, steps, 3, 0.1) for step in range(steps)]
    expected = [[0.01 * f, 0.03 * f, 0.01 * f] for f in 2 * factors]
    assert len(seen.seen) == len(expected)
    for found, wanted in zip(seen.seen, expected, strict=True):
        assert found == pytest.approx(wanted)


@pytest.mark.parametrize("num_categories", [0, 4])
def test_schedule_survives_growth(
    stream, make_strategy, make_model, probe, num_categories
):
    seen = probe("before_update", rates)
    strategy = make_strategy(
        model=make_model(num_categories),
        plugins=[WarmupCosinePlugin(1.0), seen],
        lr=0.01,
    )
    for experience in stream().train_stream:
        strategy.train(experience)
    half = len(seen.seen) // 2
    for first, second in zip(seen.seen[:half], seen.seen[half:], strict=True):
        assert first == pytest.approx(second)
    assert max(max(row) for row in seen.seen) == pytest.approx(0.01)


def test_one_epoch_is_warmed_up_for_half_of_it_at_most(stream, make_strategy, probe):
    seen = probe("before_update", rates)
    strategy = make_strategy(
        plugins=[WarmupCosinePlugin(2.0), seen],
        lr=0.01,
        train_epochs=1,
        train_mb_size=4,
    )
    strategy.train(stream().train_stream[0])
    factors = [warmup_cosine(step, 6, 3) for step in range(6)]
    assert [row[0] for row in seen.seen] == pytest.approx([0.01 * f for f in factors])
