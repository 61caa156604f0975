"""The files of a comparison: which are written, what they hold, which go."""

from __future__ import annotations

import csv

import pytest
from PIL import Image

from avalanche_ad.errors import ResultsError
from avalanche_ad.reporting.comparison import write_comparison, write_matrix_figures
from avalanche_ad.reporting.matrices import matrix_sections, mean_matrix


def result(strategy, seed, shift):
    rows = [[0.9, 0.5 + shift], [0.6, None if seed else 0.8]]
    return {
        "strategy": strategy,
        "seed": seed,
        "categories": [["bolt", "nut"], ["gear"]],
        "matrix": {"image_auroc": rows, "pixel_auroc": rows},
        "final": {"image_auroc": 0.7 + shift, "pixel_auroc": 0.8},
        "step_mean": {},
        "forgetting": {"image_auroc": 0.3 - shift},
    }


RESULTS = [
    result("naive", 0, 0.0),
    result("naive", 1, 0.1),
    result("replay", 0, 0.2),
    result("replay", 1, 0.1),
]
PUBLISHED = [
    {
        "method": "A",
        "source": "Them",
        "convention": "final",
        "image_auroc": 0.6,
    }
]


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_mean_matrix_is_defined_where_every_seed_is():
    matrix = mean_matrix(RESULTS[:2], "image_auroc")
    assert matrix == [[0.9, pytest.approx(0.55)], [0.6, None]]


def test_matrices_have_a_table_per_strategy_and_metric():
    sections = matrix_sections(RESULTS, ("image_auroc",))
    assert [section.title for section in sections] == [
        "naive: image AUROC",
        "replay: image AUROC",
    ]
    assert sections[0].head == ["", "task 1", "task 2"]
    assert sections[0].lines == [
        ["after task 1", "0.900", "0.550"],
        ["after task 2", "0.600", "–"],
    ]


def test_every_file_is_written_and_those_of_another_comparison_go(tmp_path):
    plain = {"compare.md", "compare.csv", "matrices.md"}
    write_comparison(tmp_path, "Tiny", RESULTS)
    assert names(tmp_path) == plain
    write_comparison(
        tmp_path, "Tiny", RESULTS, against="replay", published=PUBLISHED, note="Other."
    )
    assert names(tmp_path) == plain | {"compare-against.csv", "published.md"}
    page = (tmp_path / "compare.md").read_text()
    assert page.startswith("# Tiny\n")
    assert "over seeds 0, 1" in page
    assert "## Against replay" in page
    assert "**Positive = forgot**" in page
    assert "| naive | 2 | 0.750 ± 0.071 |" in page
    beside = (tmp_path / "published.md").read_text()
    assert "| A | Them | 0.600 | – | – | – |" in beside
    assert "Other." in beside
    assert "1: bolt, nut; 2: gear" in (tmp_path / "matrices.md").read_text()
    with (tmp_path / "compare-against.csv").open(newline="") as file:
        (first, *_) = csv.DictReader(file)
    assert first["against"] == "replay"
    write_comparison(tmp_path, "Tiny", RESULTS)
    assert names(tmp_path) == plain
    assert "Against" not in (tmp_path / "compare.md").read_text()


def test_matrices_are_drawn(tmp_path):
    write_matrix_figures(tmp_path, "Tiny", RESULTS)
    assert names(tmp_path) == {"matrices-image_auroc.png", "matrices-pixel_auroc.png"}
    with Image.open(tmp_path / "matrices-pixel_auroc.png") as made:
        assert made.width > 300


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "matrices.md").mkdir()
    (tmp_path / "matrices-image_auroc.png").mkdir()
    for write in (write_comparison, write_matrix_figures):
        with pytest.raises(ResultsError, match="cannot write the comparison"):
            write(tmp_path, "Tiny", RESULTS)
