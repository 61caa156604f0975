"""Tables of results: for the terminal, for a paper, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from rich.table import Table

__all__ = [
    "COLUMNS",
    "Column",
    "comparison_csv",
    "comparison_markdown",
    "comparison_rows",
    "comparison_table",
    "task_table",
]


@dataclass(frozen=True)
class Column:
    """A column of a comparison: a summary of one metric.

    :param title: heading.
    :param section: key of ``results.json``, for example ``"final"``.
    :param metric: key within the section.
    """

    title: str
    section: str
    metric: str


COLUMNS = (
    Column("image AUROC", "final", "image_auroc"),
    Column("pixel AUROC", "final", "pixel_auroc"),
    Column("AUPRO", "final", "aupro"),
    Column("image AP", "final", "image_ap"),
    Column("image forgetting", "forgetting", "image_auroc"),
    Column("pixel forgetting", "forgetting", "pixel_auroc"),
    Column("category accuracy", "final", "category_accuracy"),
    Column("image AUROC (oracle)", "final", "image_auroc_oracle"),
    Column("pixel AUROC (oracle)", "final", "pixel_auroc_oracle"),
    Column("train s", "seconds", "train"),
    Column("exemplars MB", "memory_mb", "exemplars"),
    Column("statistics MB", "memory_mb", "statistics"),
)

Row = dict[str, Any]


def comparison_rows(
    results: Sequence[Mapping[str, Any]], columns: Sequence[Column] = COLUMNS
) -> list[Row]:
    """Summarise runs by strategy: mean and standard deviation over seeds.

    :param results: contents of ``results.json``, any order of seeds.
    :param columns: what to summarise.
    :return: one row per strategy in order of first appearance, with ``strategy``,
        ``seeds`` and for every column title a pair (mean, standard deviation). The
        deviation (n − 1) is ``None`` for a single seed, the pair for undefined values.
    """
    by_strategy: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_strategy.setdefault(result["strategy"], []).append(result)
    rows = []
    for strategy, runs in by_strategy.items():
        row: Row = {"strategy": strategy, "seeds": len(runs)}
        for column in columns:
            values = [run[column.section].get(column.metric) for run in runs]
            if any(value is None for value in values):
                row[column.title] = None
            else:
                spread = stdev(values) if len(values) > 1 else None
                row[column.title] = (mean(values), spread)
        rows.append(row)
    return rows


def _digits(title: str) -> int:
    return 1 if title.endswith((" s", "MB")) else 3


def _cell(row: Row, title: str) -> str:
    value = row[title]
    if value is None:
        return "–"
    digits = _digits(title)
    middle, spread = value
    text = f"{middle:.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


def comparison_markdown(
    rows: Sequence[Row], columns: Sequence[Column] = COLUMNS
) -> str:
    """Return the comparison as a Markdown table."""
    titles = [column.title for column in columns]
    head = ["strategy", "seeds", *titles]
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "|".join([" --- "] + [" ---: "] * (len(head) - 1)) + "|",
    ]
    for row in rows:
        cells = [row["strategy"], str(row["seeds"])]
        cells += [_cell(row, title) for title in titles]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def comparison_csv(rows: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> str:
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
    rows: Sequence[Row], title: str, columns: Sequence[Column] = COLUMNS[:7]
) -> Table:
    """Return the comparison for the terminal."""
    table = Table(title=title)
    table.add_column("strategy")
    for column in columns:
        table.add_column(column.title, justify="right")
    for row in rows:
        table.add_row(row["strategy"], *[_cell(row, c.title) for c in columns])
    return table


def task_table(
    title: str, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> Table:
    """Return one evaluation for the terminal: a line per category, and their mean.

    :param title: heading.
    :param rows: per category ``experience``, ``category`` and the metrics.
    :param metrics: which metrics to show.
    """
    table = Table(title=title, show_footer=True)
    table.add_column("task", footer="")
    table.add_column("category", footer="mean")
    for metric in metrics:
        values = [row[metric] for row in rows if row[metric] is not None]
        footer = f"{mean(values):.3f}" if values else "–"
        table.add_column(metric.replace("_", " "), footer=footer, justify="right")
    for row in rows:
        cells = ["–" if row[m] is None else f"{row[m]:.3f}" for m in metrics]
        table.add_row(str(row["experience"]), row["category"], *cells)
    return table
