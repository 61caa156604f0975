"""Heat maps and matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from avalanche_ad.reporting.figures import (
    draw_intervals,
    heat_map,
    matrices_figure,
    over_seeds,
    rows_figure,
    save_heat_map,
)
from avalanche_ad.reporting.paired import Interval


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)


def test_nothing_is_laid_over_low_scores(image):
    for value in (-1.0, 0.0, 2.0):
        assert np.array_equal(heat_map(image, np.full((3, 5), value), 2.0, 4.0), image)


def test_scores_beyond_the_highest_look_alike(image):
    top, beyond = (heat_map(image, np.full((3, 5), v), 0.0, 1.0) for v in (1.0, 9.0))
    assert np.array_equal(top, beyond)
    assert not np.array_equal(top, image)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_higher_score_never_shines_less(one, other):
    black = np.zeros((2, 2, 3), dtype=np.uint8)
    low, high = (
        heat_map(black, np.full((2, 2), v), 0.0, 1.0)[0, 0] @ (0.2126, 0.7152, 0.0722)
        for v in sorted((one, other))
    )
    assert low <= high + 1


def test_only_the_place_of_the_defect_is_coloured(image):
    scores = np.zeros((12, 20))
    scores[6:, 10:] = 1.0
    made = heat_map(image, scores, 0.2, 0.8)
    changed = (made != image).any(axis=2)
    assert changed[7:, 11:].all()
    assert not changed[:5].any()
    assert not changed[:, :9].any()


def test_opacity_is_the_share_of_the_colour():
    black = np.zeros((2, 2, 3), dtype=np.uint8)
    full, half = (
        heat_map(black, np.ones((2, 2)), 0.0, 1.0, opacity).astype(int)
        for opacity in (1.0, 0.5)
    )
    assert np.abs(half - full / 2).max() <= 1
    assert full.max() > 200


def test_equal_bounds_are_a_step(image):
    scores = np.zeros((12, 20))
    scores[:, 10:] = 1.0
    made = heat_map(image, scores, 0.5, 0.5)
    assert np.array_equal(made[:, :9], image[:, :9])


def test_a_file_holds_the_image_and_the_heat_map(image, tmp_path):
    scores = np.linspace(0, 1, 240).reshape(12, 20)
    save_heat_map(tmp_path / "a.png", image, scores, 0.0, 1.0)
    pair = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(pair[:, :20], image)
    assert np.array_equal(pair[:, 20:], heat_map(image, scores, 0.0, 1.0))


def test_matrices_show_every_value_and_no_other():
    matrices = {"naive": [[0.9, None], [0.61, 1.0]], "joint": [[None, None], [0.7, 0]]}
    figure = matrices_figure(matrices, "AUROC")
    naive, joint, _ = figure.axes
    assert sorted(text.get_text() for text in naive.texts) == [".61", ".90", "1.00"]
    assert sorted(text.get_text() for text in joint.texts) == [".00", ".70"]
    assert [axes.get_title() for axes in (naive, joint)] == ["naive", "joint"]
    for axes in (naive, joint):
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2"]
    assert figure.get_suptitle() == "AUROC"


def test_many_matrices_wrap_and_hide_what_is_left():
    matrices = {str(i): [[0.9]] for i in range(5)}
    figure = matrices_figure(matrices, "x", columns=3)
    shown = [axes.get_visible() for axes in figure.axes[:6]]
    assert shown == [True] * 5 + [False]
    rows = {axes.get_subplotspec().rowspan.start for axes in figure.axes[:5]}
    assert rows == {0, 1}


def test_matrices_are_saved(tmp_path):
    matrices_figure({"naive": [[0.9]]}, "x").savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as made:
        assert made.width > 50


def test_a_page_holds_six_matrices_of_five_tasks_side_by_side():
    matrices = {str(i): np.full((5, 5), 0.4).tolist() for i in range(7)}
    figure = matrices_figure(matrices, "x")
    rows = [axes.get_subplotspec().rowspan.start for axes in figure.axes[:7]]
    assert rows == [0] * 6 + [1]


@pytest.mark.parametrize("horizontal", [False, True])
def test_axes_hold_whole_intervals_and_leave_out_what_is_undefined(horizontal):
    axes = Figure().subplots()
    found = [Interval(0.5, -0.2, 1.2), Interval(None), Interval(0.7)]
    draw_intervals(axes, [0, 1, 2], found, horizontal)
    low, high = axes.get_xlim() if horizontal else axes.get_ylim()
    assert low < -0.2
    assert high > 1.2
    at, values = axes.lines[0].get_data()[:: -1 if horizontal else 1]
    assert list(at) == [0, 2]
    assert list(values) == [0.5, 0.7]


def test_rows_are_named_in_order_and_coloured_by_group():
    found = {"a": Interval(0.5), "b": Interval(0.6, 0.3, 0.9), "c": Interval(0.7)}
    groups = {"first": ["a", "c"], "second": ["b"]}
    figure = rows_figure({"image": found, "pixel": found}, groups, "x", ["a"])
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b", "c"]
    assert [axes.get_xlabel() for axes in (left, right)] == ["image", "pixel"]
    assert left.get_ylim()[0] > left.get_ylim()[1]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == ["a", "first", "second"]


def test_one_seed_has_no_interval_to_speak_of():
    assert "interval" not in over_seeds(1)
    assert "interval of 3 seeds" in over_seeds(3)
