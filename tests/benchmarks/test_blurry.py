from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ad.benchmarks.blurry import arrival_tasks, check_blurry
from avalanche_ad.errors import DatasetError


@given(
    images=st.integers(1, 60),
    tasks=st.integers(2, 8),
    share=st.floats(0, 0.99),
    seed=st.text(max_size=4),
    data=st.data(),
)
def test_a_share_of_the_images_is_spread_evenly_over_the_other_tasks(
    images, tasks, share, seed, data
):
    home = data.draw(st.integers(0, tasks - 1))
    arrival = arrival_tasks(images, home, tasks, share, seed)
    assert arrival == arrival_tasks(images, home, tasks, share, seed)
    counts = Counter(arrival)
    away = min(round(share * images), images - 1)
    assert counts[home] == images - away >= 1
    others = [counts[task] for task in range(tasks) if task != home]
    assert sum(counts.values()) == images == counts[home] + sum(others)
    assert max(others) - min(others) <= 1


def test_no_share_leaves_all_at_home():
    assert arrival_tasks(9, 2, 5, 0.0, "0/bolt") == [2] * 9
    assert arrival_tasks(9, 0, 1, 0.0, "0/bolt") == [0] * 9


def test_the_seed_draws_the_images_and_the_tasks():
    draws = [arrival_tasks(20, 0, 6, 0.1, f"{seed}/bolt") for seed in range(40)]
    moved = {image for draw in draws for image in range(20) if draw[image]}
    reached = {task for draw in draws for task in draw}
    assert len(moved) > 15
    assert reached == set(range(6))


@pytest.mark.parametrize(
    ("share", "tasks", "message"),
    [
        (-0.1, 3, "a share from 0 to below 1, got -0.1"),
        (1.0, 3, "a share from 0 to below 1, got 1"),
        (10, 3, "a share from 0 to below 1, got 10"),
        (0.2, 1, r"blurry = 0.2 needs at least 2 experiences, got 1"),
    ],
)
def test_what_does_not_fit_is_told(share, tasks, message):
    with pytest.raises(DatasetError, match=message) as caught:
        check_blurry(share, tasks)
    assert "\n" not in str(caught.value)


def test_what_fits_is_let_through():
    check_blurry(0.0, 1)
    check_blurry(0.9, 2)
