import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ad.benchmarks import split_categories
from avalanche_ad.errors import DatasetError

NAMES = [f"category_{number:02}" for number in range(15)]


def sizes(split):
    return [len(names) for names in split]


def flat(split):
    return [name for names in split for name in names]


names = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=20, unique=True)


@given(
    names=names,
    part=st.integers(1, 20),
    seed=st.none() | st.integers(0, 2**40),
    by_experiences=st.booleans(),
)
def test_nothing_is_lost_and_nothing_comes_twice(names, part, seed, by_experiences):
    part = min(part, len(names))
    key = "n_experiences" if by_experiences else "classes_per_experience"
    split = split_categories(names, seed=seed, **{key: part})
    assert sorted(flat(split)) == sorted(names)
    assert all(split)
    if seed is None:
        assert flat(split) == names
    if by_experiences:
        assert len(split) == part
        assert max(sizes(split)) - min(sizes(split)) <= 1
        assert sizes(split) == sorted(sizes(split), reverse=True)
    else:
        assert all(size == part for size in sizes(split)[:-1])
        assert 1 <= sizes(split)[-1] <= part


def test_fifteen_categories_in_four_experiences():
    split = split_categories(NAMES, n_experiences=4)
    assert sizes(split) == [4, 4, 4, 3]
    assert flat(split) == NAMES


def test_the_last_experience_takes_what_is_left():
    assert sizes(split_categories(NAMES, classes_per_experience=4)) == [4, 4, 4, 3]
    assert sizes(split_categories(NAMES, classes_per_experience=99)) == [15]


def test_sizes_by_hand():
    split = split_categories(NAMES, classes_per_experience=[10, 1, 1, 1, 1, 1])
    assert sizes(split) == [10, 1, 1, 1, 1, 1]
    assert flat(split) == NAMES


def test_names_by_hand():
    wanted = [["category_03"], ["category_01", "category_00"]]
    assert split_categories(NAMES, experiences=wanted) == wanted


def test_order_by_hand_may_leave_categories_out():
    order = ["category_04", "category_01", "category_09"]
    split = split_categories(NAMES, n_experiences=2, class_order=order)
    assert split == [["category_04", "category_01"], ["category_09"]]


def test_seed_decides_the_order_and_nothing_else_does():
    first = split_categories(NAMES, n_experiences=5, seed=1)
    assert first == split_categories(NAMES, n_experiences=5, seed=1)
    assert flat(first) != NAMES
    assert first != split_categories(NAMES, n_experiences=5, seed=2)


def test_a_seed_shuffles_the_whole_order_whatever_gave_it():
    order = NAMES[:3:-1]
    groups = [order[:7], order[7:8], order[8:]]
    by_names = split_categories(NAMES, experiences=groups, seed=3)
    by_order = split_categories(
        NAMES, classes_per_experience=[7, 1, 3], class_order=order, seed=3
    )
    assert by_names == by_order
    assert sizes(by_names) == [7, 1, 3]
    assert sorted(flat(by_names)) == sorted(order)
    # no base group stays what it was
    bases = {
        frozenset(split_categories(NAMES, experiences=groups, seed=seed)[0])
        for seed in range(5)
    }
    assert len(bases) > 1
    assert frozenset(groups[0]) not in bases


def test_the_arguments_are_left_as_they_are():
    order = list(NAMES)
    split_categories(order, n_experiences=3, seed=1)
    split_categories(NAMES, n_experiences=3, class_order=order, seed=1)
    assert order == NAMES
    wanted = [["category_03"], ["category_01"]]
    split_categories(NAMES, experiences=wanted)[0].append("more")
    split_categories(NAMES, experiences=wanted, seed=0)
    assert wanted == [["category_03"], ["category_01"]]


ERRORS = [
    ({}, "exactly one of n_experiences, classes_per_experience and experiences"),
    ({"n_experiences": 3, "classes_per_experience": 5}, "exactly one of"),
    ({"n_experiences": 0}, "expected 1 to 15 for 15 categories, got 0"),
    ({"n_experiences": 16}, "expected 1 to 15 for 15 categories, got 16"),
    ({"classes_per_experience": 0}, "expected at least 1, got 0"),
    ({"classes_per_experience": []}, r"add up to 15 categories, got \[\] \(sum 0\)"),
    ({"classes_per_experience": [10, 4]}, r"got \[10, 4\] \(sum 14\)"),
    ({"classes_per_experience": [16, -1]}, r"positive sizes .* got \[16, -1\]"),
    ({"experiences": []}, "at least one category in each"),
    ({"experiences": [["category_01"], []]}, "at least one category in each"),
    (
        {"experiences": [["category_01"]], "class_order": NAMES},
        "already names the order",
    ),
    (
        {"experiences": [["category_01"], ["category_01"]]},
        "'category_01' is named 2 times",
    ),
    (
        {"experiences": [["category_1"]]},
        r"unknown category 'category_1' \(did you mean 'category_\d+'\?\); the data "
        "set has: category_00, category_01",
    ),
    (
        {"n_experiences": 1, "class_order": ["zebra"]},
        "unknown category 'zebra'; the data set has",
    ),
    ({"n_experiences": 1, "class_order": []}, "expected 1 to 0"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_what_does_not_fit_is_told_in_one_line(options, message):
    with pytest.raises(DatasetError, match=message) as caught:
        split_categories(NAMES, **options)
    assert "\n" not in str(caught.value)
