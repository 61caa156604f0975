"""The files of a comparison: tables, differences, matrices, published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avalanche_ad.errors import writing
from avalanche_ad.reporting.columns import (
    AUROCS,
    CSV_COLUMNS,
    further_columns,
    further_metrics,
)
from avalanche_ad.reporting.coverage import coverage_note
from avalanche_ad.reporting.figures import matrices_figure
from avalanche_ad.reporting.matrices import matrix_sections, mean_matrices
from avalanche_ad.reporting.paired import (
    paired_csv,
    paired_differences,
    paired_section,
)
from avalanche_ad.reporting.published import published_sections
from avalanche_ad.reporting.tables import (
    Section,
    comparison_csv,
    comparison_rows,
    comparison_sections,
    sections_markdown,
)

__all__ = ["against_section", "write_comparison", "write_matrix_figures"]

_MATRICES = (
    "Rows: the task trained on last; columns: the task evaluated. The diagonal is the "
    "value when learned, right of it a task not learned yet."
)


def against_section(results: Sequence[Mapping[str, Any]], against: str) -> Section:
    """Return the differences to one strategy as a table."""
    return paired_section(paired_differences(results, against), against)


def write_comparison(
    folder: Path,
    title: str,
    results: Sequence[Mapping[str, Any]],
    *,
    against: str | None = None,
    published: Sequence[Mapping[str, Any]] = (),
    note: str = "",
) -> None:
    """Write the tables of a comparison.

    ``compare.md`` and ``compare.csv``; ``compare-against.csv`` and a table in
    ``compare.md`` with ``against``; ``matrices.md``; ``published.md`` where there are
    published numbers. One that does not belong to this comparison is removed.

    :param folder: an existing folder.
    :param title: what was compared.
    :param results: contents of ``results.json``.
    :param against: name of the strategy that the others are tested against.
    :param published: entries as :func:`published_sections` takes them.
    :param note: what else to say of the published numbers.
    :raises ResultsError: when a file cannot be written.
    """
    rows = comparison_rows(results)
    further = [
        name
        for name in further_metrics(results)
        if all(name in run["matrix"] for run in results)
    ]
    seeds = sorted({result["seed"] for result in results})
    intro = (
        f"Mean ± standard deviation (n − 1) over seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}. – : undefined."
    )
    coverage = coverage_note(results)
    intro = _joined(intro, coverage)
    sections = comparison_sections(rows)
    texts: dict[str, str | None] = {
        "compare.csv": comparison_csv(rows, (*CSV_COLUMNS, *further_columns(results))),
        "compare-against.csv": None,
        "matrices.md": sections_markdown(
            title,
            _joined(_legend(results), coverage),
            matrix_sections(results, (*AUROCS, *further)),
        ),
        "published.md": None,
    }
    if against is not None:
        differences = paired_differences(results, against)
        sections.append(paired_section(differences, against))
        texts["compare-against.csv"] = paired_csv(differences, against)
    if published:
        texts["published.md"] = sections_markdown(
            f"{title}: published numbers beside",
            _joined(intro, note),
            published_sections(results, published),
        )
    texts["compare.md"] = sections_markdown(title, intro, sections)
    with writing(folder, "the comparison"):
        for name, text in texts.items():
            if text is None:
                (folder / name).unlink(missing_ok=True)
            else:
                (folder / name).write_text(text, "utf-8")


def write_matrix_figures(
    folder: Path, title: str, results: Sequence[Mapping[str, Any]]
) -> None:
    """Draw ``matrices-METRIC.png`` with the matrices of all strategies.

    :param folder: an existing folder.
    :param title: what was compared.
    :param results: contents of ``results.json``.
    :raises ResultsError: when a file cannot be written.
    """
    for metric, name in AUROCS.items():
        figure = matrices_figure(mean_matrices(results, metric), f"{name}: {title}")
        with writing(folder, "the comparison"):
            figure.savefig(folder / f"matrices-{metric}.png", dpi=150)


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _legend(results: Sequence[Mapping[str, Any]]) -> str:
    tasks = [
        f"{number}: {', '.join(names)}"
        for number, names in enumerate(results[0]["categories"], 1)
    ]
    return f"{_MATRICES} Tasks: {'; '.join(tasks)}."
