import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.thresholds import HeldOutScores, images_needed, order_of

finite = st.floats(-1e6, 1e6)
levels = st.floats(0.01, 0.999)


@given(st.lists(finite, min_size=1, max_size=60), levels)
def test_any_one_of_the_scores_and_a_new_one_is_above_as_rarely_as_promised(
    scores, level
):
    """The coverage itself: each of n + 1 scores takes the new one's part once."""
    count = len(scores) - 1
    if count < max(1, images_needed(level)):
        return
    above = sum(
        scores[i] >= HeldOutScores(scores[:i] + scores[i + 1 :]).threshold(level)
        for i in range(count + 1)
    )
    assert above / (count + 1) <= 1 - level + 1e-6
    if len(set(scores)) == len(scores):
        assert above == count + 1 - order_of(count, level)


@given(st.integers(1, 400), levels)
def test_the_expected_rate_keeps_the_level_from_enough_images_on(count, level):
    held_out = HeldOutScores(range(count))
    found = held_out.false_alarms(held_out.threshold(level), level)
    assert found.images == count
    assert (found.expected <= 1 - level + 1e-6) == (count >= images_needed(level))
    if count < images_needed(level):
        assert held_out.threshold(level) == np.nextafter(count - 1, np.inf)
        assert found.expected == pytest.approx(1 / (count + 1))
    else:
        assert found.expected > 1 - level - 1 / (count + 1) - 1e-6


@given(st.integers(1, 400), levels)
def test_the_interval_of_a_quantile_is_that_of_the_order_statistic(count, level):
    held_out = HeldOutScores(range(count))
    rank = order_of(count, level)
    found = held_out.false_alarms(held_out.threshold(level), level)
    low, high = beta(count + 1 - rank, rank).interval(0.95)
    assert found.low == pytest.approx(low, abs=1e-9)
    assert found.high == pytest.approx(high, abs=1e-9)
    assert found.low <= found.expected <= found.high


@given(st.integers(1, 200), st.integers(-1, 201))
def test_the_interval_of_another_threshold_is_clopper_and_pearsons(count, score):
    reached = sum(value >= score for value in range(count))
    expected = binomtest(reached, count).proportion_ci(0.95, method="exact")
    found = HeldOutScores(range(count)).false_alarms(score)
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


@given(st.lists(finite, min_size=1, max_size=60), finite, levels)
def test_a_score_is_above_the_threshold_of_a_level_where_few_normals_are_above_it(
    scores, score, level
):
    held_out = HeldOutScores(scores)
    if len(scores) >= images_needed(level) and score >= held_out.threshold(level):
        assert held_out.share_above(score) <= 1 - level + 1e-6


@given(st.lists(finite, min_size=1, max_size=60), st.lists(levels, min_size=2))
def test_thresholds_rise_with_the_level_and_shares_fall_with_the_score(scores, asked):
    held_out = HeldOutScores(scores[::-1])
    limits = [held_out.threshold(level) for level in sorted(asked)]
    assert limits == sorted(limits)
    shares = [held_out.share_above(limit) for limit in limits]
    assert shares == sorted(shares, reverse=True)
    assert all(0 < share <= 1 for share in shares)


def test_scores_of_normals_that_are_all_alike_are_normal():
    held_out = HeldOutScores([2.0] * 40)
    assert held_out.threshold(0.95) > 2.0
    assert held_out.share_above(2.0) == 1.0


@pytest.mark.parametrize(
    ("images", "level", "order"), [(19, 0.95, 19), (20, 0.95, 20), (39, 0.95, 38)]
)
def test_orders_by_hand(images, level, order):
    assert order_of(images, level) == order
    assert images_needed(0.95) == 19


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf]])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(TrainingError, match="held-out normals"):
        HeldOutScores(scores)


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 2.0])
def test_levels_outside_of_0_and_1_are_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        HeldOutScores([1.0]).threshold(level)


@given(st.integers(1, 400))
def test_the_least_and_the_largest_level_take_the_least_and_the_largest_score(count):
    assert order_of(count, 1e-300) == order_of(count, 1e-12) == 1
    assert order_of(count, 1 - 1e-16) == count
    held_out = HeldOutScores(range(count))
    assert held_out.threshold(1e-12) == np.nextafter(0.0, np.inf)
    assert held_out.threshold(1 - 1e-16) == np.nextafter(count - 1.0, np.inf)
    found = held_out.false_alarms(held_out.threshold(1e-12), 1e-12)
    assert 0 <= found.low <= found.expected <= found.high <= 1
    assert found.expected == pytest.approx(count / (count + 1))
