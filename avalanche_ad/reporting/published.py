"""Measured numbers beside published ones, one table per convention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from avalanche_ad.errors import counted
from avalanche_ad.reporting.columns import Column
from avalanche_ad.reporting.matrices import mean_matrices
from avalanche_ad.reporting.tables import (
    UNDEFINED,
    Section,
    by_strategy,
    comparison_rows,
    number,
    value_cell,
)

__all__ = ["published_sections"]

_CONVENTIONS = {
    "final": ("Final values", "Values after the last task."),
    "step_mean": (
        "Means over steps",
        "AUROC: mean over steps of the mean over what was seen by then. Forgetting "
        "here is the value when learned less the final one; papers may take the best.",
    ),
    "joint": ("Joint training", "All tasks trained at once."),
}
_KEYS = ("image_auroc", "pixel_auroc", "image_forgetting", "pixel_forgetting")
_TITLES = ("image AUROC", "pixel AUROC", "image forgetting", "pixel forgetting")
_SIGN = "Forgetting: positive = forgot."
_FLIPPED = "† AUROC below 0.5 was flipped, which hides forgetting."


def published_sections(
    results: Sequence[Mapping[str, Any]],
    published: Sequence[Mapping[str, Any]],
    only_measured: bool = False,
) -> list[Section]:
    """Put measured numbers beside published ones; conventions are never mixed.

    Per convention and source, one table with a line for every published entry that
    names its ``strategy``; and per convention one with all other entries below all
    measured strategies. Forgetting here is the value when learned less the final one;
    papers of the step mean may take the best value instead.

    :param results: contents of ``results.json``.
    :param published: entries with ``method``, ``source``, ``convention``, the four
        numbers, and perhaps ``strategy`` and ``flips_auroc``.
    :param only_measured: leave out lines and tables without a measured number.
    """
    sections = []
    for convention, (title, meaning) in _CONVENTIONS.items():
        entries = [entry for entry in published if entry["convention"] == convention]
        rows = _measured(results, convention)
        named = [
            entry
            for entry in entries
            if entry.get("strategy")
            and (entry["strategy"] in rows or not only_measured)
        ]
        for source in dict.fromkeys(entry["source"] for entry in named):
            own = [entry for entry in named if entry["source"] == source]
            sections.append(
                Section(
                    f"{title}, side by side",
                    _joined([meaning, f"Published: {source}.", _SIGN], own),
                    [
                        "strategy",
                        *[word for title in _TITLES for word in (title, "published")],
                    ],
                    [_side_by_side(entry, rows) for entry in own],
                )
            )
            sections += _by_task(results, own, source)
        others = [entry for entry in entries if not entry.get("strategy")]
        if others and (rows or not only_measured):
            lines = [
                [
                    name,
                    f"here, {counted(row['seeds'], 'seed')}",
                    *[_here(row, t) for t in _TITLES],
                ]
                for name, row in rows.items()
            ]
            lines += [[_method(e), e["source"], *_numbers(e)] for e in others]
            head = ["method", "source", *_TITLES]
            caption = _joined([meaning, _SIGN], others)
            sections.append(Section(title, caption, head, lines, left=2))
    return sections


def _by_task(
    results: Sequence[Mapping[str, Any]],
    entries: Sequence[Mapping[str, Any]],
    source: str,
) -> list[Section]:
    """Return final values task by task beside published ones, where there are any."""
    lines: list[list[str]] = []
    for entry in entries:
        for metric in ("image_auroc", "pixel_auroc"):
            values = entry.get(f"{metric}_by_experience")
            if not values:
                continue
            name, words = entry["strategy"], metric.replace("_auroc", " AUROC")
            own = mean_matrices(results, metric).get(name)
            if own is not None and len(own[-1]) == len(values):
                lines.append([name, f"{words}, here", *map(number, own[-1])])
            lines.append([name, f"{words}, published", *map(number, values)])
    if not lines:
        return []
    tasks = max(len(line) for line in lines) - 2
    head = ["strategy", "", *[f"task {task + 1}" for task in range(tasks)]]
    caption = f"After the last task. Published: {source}."
    return [Section("Task by task", caption, head, lines, left=2)]


def _measured(
    results: Sequence[Mapping[str, Any]], convention: str
) -> dict[str, dict[str, Any]]:
    """Return what was measured under a convention, strategy → row."""
    section = "step_mean" if convention == "step_mean" else "final"
    columns = [
        Column(title, place, f"{title.split()[0]}_auroc")
        for title, place in zip(
            _TITLES, (section, section, "forgetting", "forgetting"), strict=True
        )
    ]
    chosen = [
        run
        for runs in by_strategy(results).values()
        for run in runs
        if _is_joint(runs[0]) == (convention == "joint")
    ]
    return {row["strategy"]: row for row in comparison_rows(chosen, columns)}


def _is_joint(run: Mapping[str, Any]) -> bool:
    """Whether nothing was evaluated before the last task."""
    matrices = list(run["matrix"].values())
    return any(len(rows) > 1 for rows in matrices) and all(
        value is None for rows in matrices for row in rows[:-1] for value in row
    )


def _side_by_side(
    entry: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    cells = [_method(entry, entry["strategy"])]
    for title, text in zip(_TITLES, _numbers(entry), strict=True):
        cells += [_here(rows.get(entry["strategy"]), title), text]
    return cells


def _here(row: Mapping[str, Any] | None, title: str) -> str:
    return UNDEFINED if row is None else value_cell(row, title)


def _method(entry: Mapping[str, Any], name: str | None = None) -> str:
    mark = " †" if entry.get("flips_auroc") else ""
    return f"{name or entry['method']}{mark}"


def _numbers(entry: Mapping[str, Any]) -> list[str]:
    return [number(entry.get(key)) for key in _KEYS]


def _joined(caption: Sequence[str], entries: Sequence[Mapping[str, Any]]) -> str:
    flipped = _FLIPPED if any(entry.get("flips_auroc") for entry in entries) else ""
    return " ".join(part for part in (*caption, flipped) if part)
