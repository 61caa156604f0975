"""Tables against numbers done by hand."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from avalanche_ad.reporting.columns import (
    COLUMNS,
    CSV_COLUMNS,
    TERMINAL_COLUMNS,
    Column,
    further_columns,
    further_metrics,
)
from avalanche_ad.reporting.tables import (
    Section,
    comparison_csv,
    comparison_rows,
    comparison_section,
    comparison_sections,
    comparison_table,
    markdown_table,
    number,
    sections_markdown,
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
    rows = comparison_rows(RESULTS, CHOSEN)
    section = comparison_section("All", "What it is.", rows, CHOSEN)
    table = (
        "| strategy | seeds | image AUROC | image forgetting | train s |\n"
        "| :--- | ---: | ---: | ---: | ---: |\n"
        "| naive | 2 | 0.600 ± 0.141 | 0.400 ± 0.141 | 11.0 ± 1.4 |\n"
        "| joint | 1 | 0.900 | – | 20.0 |\n"
    )
    assert markdown_table(section) == table
    page = sections_markdown("Page", "Intro.", [section, section])
    part = f"## All\n\nWhat it is.\n\n{table}"
    assert page == f"# Page\n\nIntro.\n\n{part}\n{part}"


def test_words_stand_to_the_left_and_bars_are_no_columns():
    section = Section("", "", ["a", "b", "c"], [["x|y", "z", "1"]], left=2)
    assert markdown_table(section) == (
        "| a | b | c |\n| :--- | :--- | ---: |\n| x\\|y | z | 1 |\n"
    )


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (None, {}, "–"),
        (0.12345, {}, "0.123"),
        (-0.0, {}, "0.000"),
        (-0.0004, {}, "0.000"),
        (-0.0004, {"sign": "+"}, "+0.000"),
        (-0.5, {"sign": "+"}, "-0.500"),
        (0.5, {"sign": "+"}, "+0.500"),
        (12.34, {"digits": 1}, "12.3"),
    ],
)
def test_numbers_as_text(value, options, text):
    assert number(value, **options) == text


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
    assert ["1", "bolt", "0.500", "0.250"] in lines
    assert ["2", "gear", "0.800", "–"] in lines
    assert ["mean", "0.650", "0.250"] in lines


def test_a_column_without_any_value_has_no_mean():
    rows = [{"experience": 0, "category": "bolt", "aupro": None}]
    assert printed(task_table("T", rows, ["aupro"])).count("–") == 2


def test_results_of_an_older_version_lack_columns():
    (naive, _) = comparison_rows(RESULTS)
    assert naive["image forward transfer"] is None
    assert naive["parameters MB"] is None
    assert naive["image AUROC"] == pytest.approx((0.6, 0.02**0.5))


def test_the_sections_show_every_column_and_transfer_is_in_csv_alone():
    rows = comparison_rows(RESULTS)
    shown = [title for section in comparison_sections(rows) for title in section.head]
    assert set(shown) == {"strategy", "seeds", *[column.title for column in COLUMNS]}
    assert "bwt.image_auroc.mean" in comparison_csv(rows)
    assert {column.section for column in CSV_COLUMNS} - {
        column.section for column in COLUMNS
    } == {"bwt"}
    for columns in (COLUMNS, CSV_COLUMNS, TERMINAL_COLUMNS):
        assert len({column.title for column in columns}) == len(columns)
    assert len(TERMINAL_COLUMNS) <= 8


def test_further_metrics_have_a_table_and_columns_of_their_own():
    own = {"final": {"image_auroc": 0.5, "mine": 0.25, "mine_oracle": 0.75}}
    results = [{**RESULTS[0], **own, "forgetting": {"mine": 0.125}}, RESULTS[1]]
    assert further_metrics(results) == ["mine"]
    assert further_metrics(RESULTS) == []
    rows = comparison_rows(results)
    further = comparison_sections(rows)[-2]
    assert further.title == "Further metrics"
    naive, joint = further.lines
    assert dict(zip(further.head, naive, strict=True)) == {
        "strategy": "naive",
        "seeds": "1",
        "mine": "0.250",
        "mine (oracle)": "0.750",
        "mine, step mean": "–",
        "mine when learned": "–",
        "mine forgetting": "0.125",
        "mine forgetting from best": "–",
    }
    assert joint[2:] == ["–"] * 6
    assert "mine" in printed(comparison_table(rows, "All"))
    text = comparison_csv(rows, further_columns(results))
    assert text.startswith("strategy,seeds,final.mine.mean,final.mine.std,final.mine_o")
