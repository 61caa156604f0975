"""Tables against numbers done by hand."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from avalanche_ad.reporting.tables import (
    COLUMNS,
    Column,
    comparison_csv,
    comparison_markdown,
    comparison_rows,
    comparison_table,
    task_table,
)

CHOSEN = (
    Column("image AUROC", "final", "image_auroc"),
    Column("image forgetting", "forgetting", "image_auroc"),
    Column("train s", "seconds", "train"),
)


def result(strategy, auroc, forgetting, seconds):
    return {
        "strategy": strategy,
        "final": {"image_auroc": auroc},
        "forgetting": {"image_auroc": forgetting},
        "seconds": {"train": seconds},
    }


RESULTS = [
    result("naive", 0.5, 0.3, 10.0),
    result("joint", 0.9, None, 20.0),
    result("naive", 0.7, 0.5, 12.0),
]


def printed(table):
    console = Console(file=io.StringIO(), width=100, markup=False)
    console.print(table)
    return console.file.getvalue()


def test_rows_are_means_and_deviations_over_seeds():
    naive, joint = comparison_rows(RESULTS, CHOSEN)
    assert (naive["strategy"], naive["seeds"]) == ("naive", 2)
    # (0.1² + 0.1²) / (2 − 1) = 0.02
    assert naive["image AUROC"] == pytest.approx((0.6, 0.02**0.5))
    assert naive["train s"] == pytest.approx((11.0, 2.0**0.5))
    assert (joint["strategy"], joint["seeds"]) == ("joint", 1)
    assert joint["image AUROC"] == (0.9, None)
    assert joint["image forgetting"] is None


def test_markdown_to_the_letter():
    assert comparison_markdown(comparison_rows(RESULTS, CHOSEN), CHOSEN) == (
        "| strategy | seeds | image AUROC | image forgetting | train s |\n"
        "| --- | ---: | ---: | ---: | ---: |\n"
        "| naive | 2 | 0.600 ± 0.141 | 0.400 ± 0.141 | 11.0 ± 1.4 |\n"
        "| joint | 1 | 0.900 | – | 20.0 |\n"
    )


def test_a_value_undefined_for_one_seed_is_undefined():
    results = [*RESULTS, result("joint", 0.8, 0.0, 20.0)]
    joint = comparison_rows(results, CHOSEN)[1]
    assert joint["image forgetting"] is None


def test_csv_reads_back():
    text = comparison_csv(comparison_rows(RESULTS, CHOSEN), CHOSEN)
    naive, joint = csv.DictReader(io.StringIO(text))
    assert list(naive) == [
        "strategy",
        "seeds",
        "final.image_auroc.mean",
        "final.image_auroc.std",
        "forgetting.image_auroc.mean",
        "forgetting.image_auroc.std",
        "seconds.train.mean",
        "seconds.train.std",
    ]
    assert float(naive["final.image_auroc.mean"]) == pytest.approx(0.6)
    assert float(naive["final.image_auroc.std"]) == pytest.approx(0.02**0.5)
    assert joint["final.image_auroc.std"] == ""
    assert joint["forgetting.image_auroc.mean"] == ""


def test_terminal_tables_show_names_as_they_are():
    results = [{**RESULTS[0], "strategy": "own[b]"}, RESULTS[1]]
    text = printed(comparison_table(comparison_rows(results, CHOSEN), "All", CHOSEN))
    assert "own[b]" in text
    assert "0.500" in text
    assert "–" in text


def test_a_task_table_has_a_line_per_category_and_their_mean():
    rows = [
        {"experience": 0, "category": "bolt", "image_auroc": 0.5, "aupro": 0.25},
        {"experience": 1, "category": "gear", "image_auroc": 0.8, "aupro": None},
    ]
    text = printed(task_table("After task 2", rows, ["image_auroc", "aupro"]))
    lines = [
        [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]
        for line in text.splitlines()
    ]
    assert ["task", "category", "image auroc", "aupro"] in lines
    assert ["0", "bolt", "0.500", "0.250"] in lines
    assert ["1", "gear", "0.800", "–"] in lines
    assert ["mean", "0.650", "0.250"] in lines


def test_a_column_without_any_value_has_no_mean():
    rows = [{"experience": 0, "category": "bolt", "aupro": None}]
    assert printed(task_table("T", rows, ["aupro"])).count("–") == 2


def test_the_columns_are_keys_of_the_results():
    sections = {"final", "forgetting", "seconds", "memory_mb"}
    assert {column.section for column in COLUMNS} == sections
    assert len({column.title for column in COLUMNS}) == len(COLUMNS)
