"""Heat maps and matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avalanche_ad.reporting.figures import heat_map, matrices_figure, save_heat_map


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
