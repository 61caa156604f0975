"""Heat maps and matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avalanche_ad.reporting.figures import heat_map, matrix_figure, save_heat_map


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


def test_a_matrix_shows_every_value_and_no_other():
    figure = matrix_figure([[0.9, None], [0.61, 0.75]], "AUROC", ["one", "two"])
    (axes,) = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == ["0.61", "0.75", "0.90"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "two"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "after 1",
        "after 2",
    ]
    assert axes.get_title() == "AUROC"


def test_a_matrix_is_saved(tmp_path):
    figure = matrix_figure([[0.9]], "x", ["one"])
    figure.savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as made:
        assert made.width > 50
