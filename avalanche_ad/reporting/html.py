"""One self-contained page of finished runs: figures, tables, what made them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from avalanche_ad.reporting.figures import (
    matrices_figure,
    over_seeds,
    rows_figure,
    steps_figure,
)
from avalanche_ad.reporting.matrices import mean_matrices, mean_steps
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import (
    UNDEFINED,
    Section,
    by_strategy,
    comparison_rows,
    comparison_sections,
    number,
)

__all__ = ["report_page"]

_METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC"}

Runs = Sequence[Mapping[str, Any]]


def report_page(title: str, results: Runs) -> str:
    """Return an HTML page that needs nothing outside of it.

    :param title: heading.
    :param results: contents of ``results.json`` of runs on one stream. Strategies are
        shown in the order of their final image AUROC, best first.
    """
    strategies = by_strategy(results)
    best = {
        name: interval([run.get("final", {}).get("image_auroc") for run in runs]).mean
        for name, runs in strategies.items()
    }
    order = sorted(best, key=lambda name: -(best[name] or 0.0))
    results = [run for name in order for run in strategies[name]]
    strategies = by_strategy(results)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("avalanche_ad.reporting", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page: str = environment.get_template("report.html.jinja").render(
        title=title,
        runs=len(results),
        seeds=sorted({run["seed"] for run in results}),
        tasks=results[0]["categories"],
        figures=_figures(results),
        sections=[
            *comparison_sections(comparison_rows(results)),
            *_category_sections(results),
            *_difference_sections(results),
            _origin_section(results),
        ],
        settings={
            "stream": json.dumps(results[0]["config"].get("benchmark"), indent=1),
            **{
                strategy: json.dumps(runs[0]["config"].get("strategy"), indent=1)
                for strategy, runs in strategies.items()
            },
        },
    )
    return page


def _figures(results: Runs) -> list[tuple[str, str, str]]:
    """Return heading, picture as a data address, and caption of each figure."""
    counts = {len(runs) for runs in by_strategy(results).values()}
    seeds = over_seeds(max(counts)).capitalize()
    dots = f"{seeds}{' at the most' if len(counts) > 1 else ''}."
    drawn = [("After the last task", _dots(results, "final"), dots)]
    if len(results[0]["categories"]) > 1:
        steps = "Mean over the categories seen by then and over seeds."
        cells = (
            "The diagonal is the value when learned; right of it are tasks not learned "
            "yet. Mean over seeds."
        )
        drawn += [
            ("Forgetting", _dots(results, "forgetting"), f"{dots} Positive = forgot."),
            *(
                (f"{name} over the stream", steps_figure(found, name), steps)
                for metric, name in _METRICS.items()
                for found in [mean_steps(results, metric)]
            ),
            *(
                (f"{name}, task by task", matrices_figure(found, ""), cells)
                for metric, name in _METRICS.items()
                for found in [mean_matrices(results, metric)]
            ),
        ]
    return [(heading, _inline(figure), caption) for heading, figure, caption in drawn]


def _dots(results: Runs, section: str) -> Figure:
    """Draw a summary of image and pixel AUROC, a row per strategy."""
    strategies = by_strategy(results)
    panels = {
        name: {
            strategy: interval([run.get(section, {}).get(metric) for run in runs])
            for strategy, runs in strategies.items()
        }
        for metric, name in _METRICS.items()
    }
    return rows_figure(panels, {"": list(strategies)}, "")


def _inline(figure: Figure) -> str:
    """Return a figure as the address of an image that holds itself, always the same."""
    text = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "avalanche_ad"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(text.getvalue()).decode()}"


def _category_sections(results: Runs) -> list[Section]:
    """Return final values of every category, a table per metric."""
    names = [name for task in results[0]["categories"] for name in task]
    sections = []
    for metric, title in _METRICS.items():
        lines = []
        for strategy, runs in by_strategy(results).items():
            found = [run.get("per_category", {}).get(metric, {}) for run in runs]
            cells = []
            for name in names:
                values = [one.get(name) for one in found]
                known = None if None in values else mean(values)
                cells.append(number(known, 2))
            lines.append([strategy, *cells])
        sections.append(
            Section(
                f"{title} of each category",
                "After the last task, in the order of the stream; mean over seeds.",
                ["strategy", *names],
                lines,
            )
        )
    return sections


def _difference_sections(results: Runs) -> list[Section]:
    """Return the settings of stream and budget that the runs do not share."""
    settings = [_flat(run["config"].get("benchmark", {})) for run in results]
    lines = []
    for key in dict.fromkeys(key for one in settings for key in one):
        values = [json.dumps(one[key]) if key in one else UNDEFINED for one in settings]
        for value in dict.fromkeys(values) if len(set(values)) > 1 else ():
            owners = [
                f"{run['strategy']} {run['seed']}"
                for run, own in zip(results, values, strict=True)
                if own == value
            ]
            lines.append([key, value, ", ".join(owners)])
    if not lines:
        return []
    return [
        Section(
            "Settings that differ",
            "These runs do not compare strategies alone. – : not recorded, since the "
            "setting came later; its default then.",
            ["setting", "value", "runs (strategy and seed)"],
            lines,
            left=3,
        )
    ]


def _origin_section(results: Runs) -> Section:
    """Return which versions made which runs."""
    lines: dict[tuple[str, str], list[str]] = {}
    for run in results:
        versions = ", ".join(f"{k} {v}" for k, v in run.get("versions", {}).items())
        made = (run.get("git") or UNDEFINED, versions)
        lines.setdefault(made, []).append(f"{run['strategy']} {run['seed']}")
    return Section(
        "Made with",
        "The commit is that of a checkout; – : an installed package.",
        ["commit", "versions", "runs (strategy and seed)"],
        [[*made, ", ".join(owners)] for made, owners in lines.items()],
        left=3,
    )


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{key}.")
        else:
            found[above + key] = value
    return found
