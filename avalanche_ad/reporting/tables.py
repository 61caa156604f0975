"""Tables of results: for the terminal, for a paper, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from avalanche_ad.reporting.columns import (
    COST_COLUMNS,
    CSV_COLUMNS,
    FINAL_COLUMNS,
    ORACLE_COLUMNS,
    STREAM_COLUMNS,
    TERMINAL_COLUMNS,
    Column,
    further_columns,
)

__all__ = [
    "UNDEFINED",
    "Section",
    "by_strategy",
    "comparison_csv",
    "comparison_rows",
    "comparison_section",
    "comparison_sections",
    "comparison_table",
    "markdown_table",
    "number",
    "sections_markdown",
    "task_table",
    "terminal_table",
    "value_cell",
]


@dataclass(frozen=True)
class Section:
    """A table with its heading and what it shows, ready to be written anywhere.

    :param title: heading.
    :param caption: what the numbers are, and which sign means what.
    :param head: headings of the columns.
    :param lines: cells of every line, as text.
    :param left: the first so many columns are words and stand to the left.

    >>> table = Section("AUROC", "Mean.", ["strategy", "image"], [["naive", ".81"]])
    >>> sections_markdown("Results", "", [table]).splitlines()[-1]
    '| naive | .81 |'
    """

    title: str
    caption: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int = 1


_TITLES = {"strategy", "seeds", *(column.title for column in CSV_COLUMNS)}
UNDEFINED = "–"
"""What a table shows where there is no value."""

Row = dict[str, Any]


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Return a number as tables show it: never as minus nothing.

    :param value: ``None`` where undefined.
    :param digits: after the point.
    :param sign: ``"+"`` to show that of positive numbers too.
    """
    # adding zero turns -0.0 into 0.0
    return (
        UNDEFINED if value is None else f"{round(value, digits) + 0.0:{sign}.{digits}f}"
    )


def by_strategy(
    results: Iterable[Mapping[str, Any]],
) -> dict[str, list[Mapping[str, Any]]]:
    """Sort runs by their strategy, in order of first appearance."""
    sorted_: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        sorted_.setdefault(result["strategy"], []).append(result)
    return sorted_


def comparison_rows(
    results: Sequence[Mapping[str, Any]], columns: Sequence[Column] | None = None
) -> list[Row]:
    """Summarise runs by strategy: mean and standard deviation over seeds.

    :param results: contents of ``results.json``, any order of seeds.
    :param columns: what to summarise; by default all that is compared, and
        :func:`further_columns`.
    :return: one row per strategy in order of first appearance, with ``strategy``,
        ``seeds`` and for every column title a pair (mean, standard deviation). The
        deviation (n − 1) is ``None`` for a single seed, the pair for undefined values.
    """
    if columns is None:
        columns = (*CSV_COLUMNS, *further_columns(results))
    rows = []
    for strategy, runs in by_strategy(results).items():
        row: Row = {"strategy": strategy, "seeds": len(runs)}
        for column in columns:
            values = [run.get(column.section, {}).get(column.metric) for run in runs]
            if any(value is None for value in values):
                row[column.title] = None
            else:
                spread = stdev(values) if len(values) > 1 else None
                row[column.title] = (mean(values), spread)
        rows.append(row)
    return rows


def value_cell(row: Mapping[str, Any], title: str) -> str:
    """Return mean ± standard deviation as text.

    :param row: of :func:`comparison_rows`.
    :param title: heading of the column.
    """
    value = row[title]
    if value is None:
        return UNDEFINED
    digits = {" s": 1, "MB": 2}.get(title[-2:], 3)
    middle, spread = value
    text = number(middle, digits)
    return text if spread is None else f"{text} ± {number(spread, digits)}"


def markdown_table(section: Section) -> str:
    """Return a table as Markdown; bars within cells are escaped."""
    words = min(section.left, len(section.head))
    rule = [":---"] * words + ["---:"] * (len(section.head) - words)
    lines = [
        [cell.replace("|", "\\|") for cell in line]
        for line in (section.head, *section.lines)
    ]
    rows = [lines[0], rule, *lines[1:]]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def comparison_section(
    title: str, caption: str, rows: Sequence[Row], columns: Sequence[Column]
) -> Section:
    """Return some columns of a comparison as a table."""
    titles = [column.title for column in columns]
    lines = [
        [
            row["strategy"],
            str(row["seeds"]),
            *[value_cell(row, title) for title in titles],
        ]
        for row in rows
    ]
    return Section(title, caption, ["strategy", "seeds", *titles], lines)


def _further(rows: Sequence[Row]) -> list[Column]:
    """Return columns for the titles of rows that are no part of every comparison."""
    titles = dict.fromkeys(title for row in rows for title in row)
    return [Column(title, "", "") for title in titles if title not in _TITLES]


def comparison_sections(rows: Sequence[Row]) -> list[Section]:
    """Return the full comparison: values, category known, over the stream, costs.

    :param rows: of :func:`comparison_rows`; further metrics get a table of their own.
    """
    further = _further(rows)
    return [
        comparison_section(
            "After the last task", "Means over all categories.", rows, FINAL_COLUMNS
        ),
        comparison_section(
            "Category inferred and known",
            "Scores infer the category; (oracle): they are given it.",
            rows,
            ORACLE_COLUMNS,
        ),
        comparison_section(
            "Over the stream",
            "Step mean: mean over steps of the mean over the categories seen by then. "
            "When learned (plasticity): mean over tasks right after training on each. "
            "Forgetting: that value less the one after the last task, mean over all "
            "tasks but the last; from best: the best value since then instead. "
            "**Positive = forgot**; backward transfer is forgetting with the other "
            "sign. Forward transfer: value just before learning a task less that of an "
            "untrained model; positive = head start; measured where the recipe "
            "says forward_transfer = true.",
            rows,
            STREAM_COLUMNS,
        ),
        *(
            [
                comparison_section(
                    "Further metrics",
                    "Measured because the benchmark names them; the columns are those "
                    "of the tables above.",
                    rows,
                    further,
                )
            ]
            if further
            else []
        ),
        comparison_section(
            "Cost",
            "Exemplars: images kept. Statistics: mixtures of features kept. "
            "Parameters: the model and copies, importances and masks kept with it. "
            "MB = 10⁶ bytes, after the last task.",
            rows,
            COST_COLUMNS,
        ),
    ]


def comparison_csv(rows: Sequence[Row], columns: Sequence[Column] = CSV_COLUMNS) -> str:
    """Return the comparison as CSV: a mean and a deviation column per metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{column.section}.{column.metric}" for column in columns]
    head = [part for name in names for part in (f"{name}.mean", f"{name}.std")]
    writer.writerow(["strategy", "seeds", *head])
    for row in rows:
        cells: list[object] = []
        for column in columns:
            value = row[column.title]
            cells += ["", ""] if value is None else [value[0], value[1]]
        writer.writerow(
            [row["strategy"], row["seeds"], *["" if c is None else c for c in cells]]
        )
    return text.getvalue()


def comparison_table(
    rows: Sequence[Row], title: str, columns: Sequence[Column] | None = None
) -> Table:
    """Return the comparison for the terminal, final values of further metrics last."""
    if columns is None:
        final = [column for column in _further(rows) if " " not in column.title]
        columns = (*TERMINAL_COLUMNS, *final)
    lines = [[r["strategy"], *[value_cell(r, c.title) for c in columns]] for r in rows]
    head = ["strategy", *[column.title for column in columns]]
    return terminal_table(Section(title, "", head, lines))


def terminal_table(section: Section) -> Table:
    """Return a table for the terminal, without its caption."""
    table = Table(title=section.title)
    for index, heading in enumerate(section.head):
        table.add_column(heading, justify="left" if index < section.left else "right")
    for line in section.lines:
        table.add_row(*line)
    return table


def sections_markdown(title: str, intro: str, sections: Sequence[Section]) -> str:
    """Return a page of tables.

    :param title: heading of the page.
    :param intro: what holds for all of them.
    :param sections: the tables.
    """
    parts = [f"# {title}\n", f"{intro}\n"]
    for section in sections:
        parts += [f"## {section.title}\n", f"{section.caption}\n"]
        parts += [markdown_table(section)]
    return "\n".join(parts)


def task_table(
    title: str, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> Table:
    """Return one evaluation for the terminal: a line per category, and their mean.

    :param title: heading.
    :param rows: per category ``experience``, from 0, ``category`` and the metrics.
    :param metrics: which metrics to show.
    """
    table = Table(title=title, show_footer=True)
    table.add_column("task", footer="")
    table.add_column("category", footer="mean")
    for metric in metrics:
        values = [row[metric] for row in rows if row[metric] is not None]
        footer = number(mean(values) if values else None)
        table.add_column(metric.replace("_", " "), footer=footer, justify="right")
    for row in rows:
        cells = [number(row[m]) for m in metrics]
        table.add_row(str(row["experience"] + 1), row["category"], *cells)
    return table
