import pytest

from avalanche_ad.evaluation.continual import (
    backward_transfer,
    forgetting,
    forgetting_max,
    forward_transfer,
    mean_defined,
    plasticity,
    result_matrix,
    step_mean,
)

MATRIX = [
    [0.9, 0.5, 0.4],
    [0.7, 0.8, 0.6],
    [0.6, 0.85, 0.95],
]


def test_continual_measures_by_hand():
    assert forgetting(MATRIX) == pytest.approx((0.3 - 0.05) / 2)
    assert backward_transfer(MATRIX) == pytest.approx(-(0.3 - 0.05) / 2)
    assert forgetting_max(MATRIX) == pytest.approx((0.3 - 0.05) / 2)
    assert plasticity(MATRIX) == pytest.approx((0.9 + 0.8 + 0.95) / 3)
    assert forward_transfer(MATRIX, [0.5, 0.4, 0.3]) == pytest.approx((0.1 + 0.3) / 2)
    steps = [row[: i + 1] for i, row in enumerate(MATRIX)]
    assert step_mean(steps) == pytest.approx((0.9 + 0.75 + 0.8) / 3)


def test_forgetting_max_takes_the_best_value_before_the_last_step():
    matrix = [[0.5, None, None], [0.9, 0.6, None], [0.4, 0.99, 0.7]]
    assert forgetting_max(matrix) == pytest.approx((0.5 + 0.6 - 0.99) / 2)
    assert forgetting(matrix) == pytest.approx((0.1 + 0.6 - 0.99) / 2)


def test_missing_values_are_skipped():
    matrix = [[0.9, None, None], [None, None, None], [0.6, 0.5, 0.7]]
    assert forgetting(matrix) == pytest.approx(0.3)
    assert forgetting_max(matrix) == pytest.approx(0.3)
    assert plasticity(matrix) == pytest.approx(0.8)
    assert step_mean([[0.9], [None, None], [0.6, None]]) == pytest.approx(0.75)
    assert forward_transfer(matrix, [None, 0.1, 0.1]) is None


@pytest.mark.parametrize("matrix", [[], [[0.9]], [[0.9, 0.8, 0.7]], [[None], [None]]])
def test_nothing_to_forget_is_none(matrix):
    assert forgetting(matrix) is None
    assert forgetting_max(matrix) is None
    assert backward_transfer(matrix) is None


def test_ragged_rows_are_read_as_missing():
    assert forgetting([[0.9], [0.7, 0.8], [0.5]]) == pytest.approx(0.4)
    assert forward_transfer([[0.9], [0.7, 0.8]], [0.5, 0.5, 0.5]) is None


def test_means_of_nothing_are_none():
    assert mean_defined([]) is None
    assert mean_defined([None, 0.5]) == 0.5
    assert step_mean([]) is None
    assert plasticity([]) is None


def test_result_matrix_takes_the_latest_and_averages_categories():
    def entry(training, experience, category, value, stream="test"):
        return {
            "training_experience": training,
            "experience": experience,
            "stream": stream,
            "category": category,
            "aupro": value,
        }

    history = [
        entry(None, 0, "a", 0.1),
        entry(0, 0, "a", 0.2),
        entry(0, 0, "a", 0.8),
        entry(0, 0, "b", 0.4),
        entry(0, 0, "b", 0.9, stream="train"),
        entry(1, 0, "a", None),
        entry(1, 0, "b", 0.5),
        entry(1, 1, "c", None),
    ]
    assert result_matrix(history, "aupro") == [
        [pytest.approx(0.6), None],
        [0.5, None],
    ]
    assert result_matrix([], "aupro") == []
