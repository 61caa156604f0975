"""Paired differences against definitions and numbers done by hand."""

from __future__ import annotations

import csv
import io
import math

import pytest
from scipy import stats

from avalanche_ad.reporting.paired import (
    MEASURES,
    PairedDifference,
    holm,
    interval,
    paired_csv,
    paired_difference,
    paired_differences,
    paired_section,
)


def test_a_difference_is_that_of_the_paired_t_test():
    values = {0: 0.80, 1: 0.84, 2: 0.86, 7: 0.1}
    reference = {2: 0.70, 1: 0.75, 0: 0.60, 5: 0.9}  # another order, other seeds
    found = paired_difference(values, reference)
    differences = [0.20, 0.09, 0.16]
    middle = sum(differences) / 3
    spread = math.sqrt(sum((d - middle) ** 2 for d in differences) / 2)
    error = spread / math.sqrt(3)
    assert found.n == 3
    assert found.mean == pytest.approx(middle)
    assert found.p == pytest.approx(2 * stats.t.sf(middle / error, 2))
    reach = stats.t.ppf(0.975, 2) * error
    assert found.low == pytest.approx(middle - reach)
    assert found.high == pytest.approx(middle + reach)


@pytest.mark.parametrize("values", [{}, {0: 0.5}, {3: 0.5, 4: 0.6}])
def test_fewer_than_two_seeds_in_common_give_nothing(values):
    found = paired_difference(values, {0: 0.4, 1: 0.5})
    assert found == PairedDifference(len(set(values) & {0, 1}))


def test_an_undefined_value_gives_nothing():
    assert paired_difference({0: None, 1: 0.5}, {0: 0.1, 1: 0.2}) == PairedDifference(2)
    assert paired_difference({0: 0.1, 1: 0.2}, {0: None, 1: 0.2}) == PairedDifference(2)


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_without_spread_there_is_a_mean_and_no_test(shift):
    reference = {0: 0.3, 1: 0.7, 2: 0.11}
    values = {seed: value + shift for seed, value in reference.items()}
    found = paired_difference(values, reference)  # a warning would be an error
    assert found.mean == pytest.approx(shift)
    assert (found.low, found.high, found.p) == (None, None, None)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_what_was_not_tested_does_not_count():
    assert holm([None, 0.01, None, 0.04]) == [None, 0.02, None, 0.04]


def result(strategy, seed, value, forgotten):
    return {
        "strategy": strategy,
        "seed": seed,
        "final": {"image_auroc": value, "pixel_auroc": value},
        "forgetting": {"image_auroc": forgotten, "pixel_auroc": forgotten},
    }


NOISE = (0.0, 0.01, -0.02)
RESULTS = [
    *[result("replay", seed, 0.8 + NOISE[seed], 0.1) for seed in range(3)],
    *[result("naive", seed, 0.5 - NOISE[seed], 0.4) for seed in range(3)],
    *[result("joint", seed, 0.9, None) for seed in range(3)],
    result("late", 0, 0.7, 0.2),
]


def test_every_other_strategy_is_compared_in_every_measure():
    table = paired_differences(RESULTS, "replay")
    assert list(table) == ["naive", "joint", "late"]
    for differences in table.values():
        assert list(differences) == [title for title, _, _ in MEASURES]
    naive = table["naive"]["image AUROC"]
    assert naive.mean == pytest.approx(-0.3 - 2 * sum(NOISE) / 3)
    # two were tested, of which this is the surer
    assert naive.p_holm == pytest.approx(2 * naive.p)
    assert table["joint"]["image forgetting"] == PairedDifference(3)
    assert table["late"]["image AUROC"] == PairedDifference(1)


def test_the_table_says_what_it_can():
    section = paired_section(paired_differences(RESULTS, "replay"), "replay")
    naive, joint, late = section.lines
    assert section.head == ["strategy", "n", *[title for title, _, _ in MEASURES]]
    assert naive[:2] == ["naive", "3"]
    assert naive[2].startswith("-0.293 [-0.")
    assert naive[2].endswith("p 0.007")  # 2 · P(|t| > 16.6), of 2 degrees
    assert naive[4] == "+0.300 [–] p –"
    assert joint[4] == "–"
    assert late == ["late", "1", "–", "–", "–", "–"]
    assert "nan" not in str(section)
    assert "over the 2 tested" in section.caption  # one seed cannot be


def test_a_very_small_p_is_not_called_nothing():
    values = [result("a", seed, 0.9 + seed / 1e6, 0.0) for seed in range(3)]
    values += [result("b", seed, 0.1, 0.0) for seed in range(3)]
    (line,) = paired_section(paired_differences(values, "b"), "b").lines
    assert line[2] == "+0.800 [+0.800, +0.800] p < .001"


def test_csv_reads_back():
    text = paired_csv(paired_differences(RESULTS, "replay"), "replay")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == 3 * len(MEASURES)
    first = lines[0]
    assert [first[key] for key in ("strategy", "against", "measure", "n")] == [
        "naive",
        "replay",
        "final.image_auroc",
        "3",
    ]
    assert float(first["low"]) < float(first["mean"]) < float(first["high"]) < 0
    assert float(first["p_holm"]) >= float(first["p"])
    assert [lines[-1][key] for key in ("mean", "p")] == ["", ""]


def test_an_interval_is_students():
    values = [0.8, 0.84, 0.9]
    found = interval(values)
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx(
        (sum(values) / 3, low, high)
    )
    assert found.text() == f"{sum(values) / 3:.3f} [{low:.3f}, {high:.3f}]"


def test_an_interval_of_one_value_or_none():
    assert interval([0.5]).text(sign="+") == "+0.500"
    assert interval([0.5, None]).text() == interval([]).text() == "–"
