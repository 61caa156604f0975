"""Results of other images or features are told from each other, in one line."""

from __future__ import annotations

import pytest

from avalanche_ad.errors import ResultsError
from avalanche_ad.experiments.provenance import (
    check_data_of_run,
    check_same_data,
    check_same_features,
)

DATA = {"bolt": "a1", "gear": "b1", "nut": "c1"}


def test_the_categories_that_changed_and_the_runs_are_named():
    made = [
        ("naive-seed0", DATA),
        ("naive-seed1", DATA),
        ("those to be made", {**DATA, "gear": "b2", "nut": "c2"}),
    ]
    with pytest.raises(ResultsError) as caught:
        check_same_data(made)
    message = str(caught.value)
    assert "different images or masks: gear, nut changed" in message
    assert "(naive-seed0, naive-seed1 | those to be made)" in message
    assert "--out" in message
    assert "\n" not in message


def test_a_category_that_came_or_went_has_changed():
    with pytest.raises(ResultsError, match=r"masks: nut changed \(a \| b\)"):
        check_same_data([("a", DATA), ("b", {"bolt": "a1", "gear": "b1"})])


def test_many_categories_fit_in_a_line():
    names = [f"c{number:02d}" for number in range(15)]
    made = [(who, dict.fromkeys(names, who)) for who in ("a", "b")]
    with pytest.raises(ResultsError, match="c00, c01, c02, c03, c04 and 10 more"):
        check_same_data(made)


@pytest.mark.parametrize("missing", [None, {}])
def test_results_of_early_versions_are_left_out(missing):
    check_same_data([("old", missing), ("a", DATA), ("b", dict(DATA))])
    check_same_features("embedded", [("old", None), ("a", "1"), ("b", "1")])
    with pytest.raises(ResultsError):
        check_same_data([("old", missing), ("a", DATA), ("b", {**DATA, "nut": "x"})])


def test_a_run_of_other_images_says_how_to_mend_it(tmp_path):
    check_data_of_run(tmp_path / "run", DATA, dict(DATA))
    check_data_of_run(tmp_path / "run", DATA, None)
    with pytest.raises(ResultsError, match=r"bolt changed \(run \| .*remove .*/run,"):
        check_data_of_run(tmp_path / "run", DATA, {**DATA, "bolt": "x"})
