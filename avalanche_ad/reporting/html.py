"""One self-contained page of finished runs: figures, tables, what made them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from avalanche_ad.reporting.columns import AUROCS, further_metrics
from avalanche_ad.reporting.coverage import coverage_note
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

_DIGEST = 12

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
        coverage=coverage_note(results),
        figures=_figures(results),
        sections=[
            *comparison_sections(comparison_rows(results)),
            *_category_sections(results),
            *_difference_sections(results),
            _origin_section(results),
        ],
        settings=_settings(results),
    )
    return page


def _figures(results: Runs) -> list[tuple[str, str, str]]:
    """Return heading, picture as a data address, and caption of each figure."""
    counts = {len(runs) for runs in by_strategy(results).values()}
    seeds = over_seeds(max(counts)).capitalize()
    dots = f"{seeds}{' at the most' if len(counts) > 1 else ''}."
    drawn = [("Image and pixel AUROC", _dots(results, "final"), dots)]
    if len(results[0]["categories"]) > 1:
        steps = "Mean over the categories seen by then and over seeds."
        cells = (
            "The diagonal is the value when learned; right of it are tasks not learned "
            "yet. Mean over seeds."
        )
        drawn.append(
            ("Forgetting", _dots(results, "forgetting"), f"{dots} Positive = forgot.")
        )
        for metric, name in AUROCS.items():
            lines = steps_figure(mean_steps(results, metric), name)
            drawn.append((f"{name} over the stream", lines, steps))
        for metric, name in AUROCS.items():
            matrices = matrices_figure(mean_matrices(results, metric), "")
            drawn.append((f"{name}, task by task", matrices, cells))
    return [(heading, _inline(figure), caption) for heading, figure, caption in drawn]


def _dots(results: Runs, section: str) -> Figure:
    """Draw a summary of image and pixel AUROC, a row per strategy."""
    strategies = by_strategy(results)
    panels = {
        name: {
            strategy: interval([run.get(section, {}).get(metric) for run in runs])
            for strategy, runs in strategies.items()
        }
        for metric, name in AUROCS.items()
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
    further = {name: name for name in further_metrics(results)}
    for metric, title in (AUROCS | further).items():
        lines = []
        for strategy, runs in by_strategy(results).items():
            found = [run.get("per_category", {}).get(metric, {}) for run in runs]
            means = [interval([one.get(name) for one in found]).mean for name in names]
            lines.append([strategy, *[number(value, 2) for value in means]])
        sections.append(
            Section(
                f"{title} of each category",
                "After the last task, in the order of the stream; mean over seeds.",
                ["strategy", *names],
                lines,
            )
        )
    return sections


def _stream_settings(run: Mapping[str, Any]) -> dict[str, str]:
    """Return what a run was told of stream, model and budget, and where its data is."""
    config = run["config"]
    return _flat({"data": config.get("data"), **config.get("benchmark", {})})


def _image_settings(run: Mapping[str, Any]) -> dict[str, str]:
    """Return digests of a run's images, none of an early version's."""
    digests = run.get("data") or {}
    return {f"images of {name}": value[:_DIGEST] for name, value in digests.items()}


def _unshared(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the names whose values are not the same everywhere."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one.get(name) for one in settings}) > 1]


def _difference_sections(results: Runs) -> list[Section]:
    """Return the settings that not all runs share, and seeds of a strategy should."""
    groups: list[tuple[str, Runs, list[dict[str, str]]]] = [
        (
            "",
            results,
            [_stream_settings(run) | _image_settings(run) for run in results],
        )
    ]
    for strategy, runs in by_strategy(results).items():
        own = [_flat(run["config"].get("strategy", {})) for run in runs]
        groups.append((f"{strategy}: ", runs, own))
    lines = []
    for owner, members, settings in groups:
        for name in _unshared(settings):
            values: dict[str, list[Mapping[str, Any]]] = {}
            for run, told in zip(members, settings, strict=True):
                values.setdefault(told.get(name, UNDEFINED), []).append(run)
            *few, (value, most) = sorted(values.items(), key=lambda item: len(item[1]))
            lines += [[owner + name, value, _named(runs)] for value, runs in few]
            others = "all others" if len(most) > 1 else _named(most)
            lines.append([owner + name, value, others])
    if not lines:
        return []
    return [
        Section(
            "Settings that differ",
            "Set by a strategy's file; or by --set, and then the numbers are of "
            "another experiment. – : there is no such setting.",
            ["setting", "value", "runs (strategy and seeds)"],
            lines,
            left=3,
        )
    ]


def _named(runs: Runs) -> str:
    """Return strategies with their seeds."""
    return "; ".join(
        f"{strategy} {', '.join(str(run['seed']) for run in own)}"
        for strategy, own in by_strategy(runs).items()
    )


def _settings(results: Runs) -> list[tuple[str, dict[str, str]]]:
    """Return what all runs share, then by strategy what they do not, of its first."""
    streams = [_stream_settings(run) for run in results]
    differ = set(_unshared(streams))
    shared = {key: value for key, value in streams[0].items() if key not in differ}
    found = [("What all runs share", shared)]
    for strategy, runs in by_strategy(results).items():
        first = _stream_settings(runs[0])
        own = {key: value for key, value in first.items() if key in differ}
        found.append((strategy, own | _flat(runs[0]["config"].get("strategy", {}))))
    return found


def _origin_section(results: Runs) -> Section:
    """Return which versions made which runs."""
    lines: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for run in results:
        versions = ", ".join(f"{k} {v}" for k, v in run.get("versions", {}).items())
        made = (run.get("git") or UNDEFINED, versions, _data_id(run))
        lines.setdefault(made, []).append(run)
    return Section(
        "Made with",
        "The commit is that of a checkout; – : an installed package. Runs of one data "
        "digest saw the same images and masks; – : a run that did not record it.",
        ["commit", "versions", "data", "runs (strategy and seeds)"],
        [[*made, _named(runs)] for made, runs in lines.items()],
        left=4,
    )


def _data_id(run: Mapping[str, Any]) -> str:
    """Return a short digest of all that a run learned and was tested on."""
    digests = run.get("data")
    if not digests:
        return UNDEFINED
    text = json.dumps(sorted(digests.items())).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()[:_DIGEST]


def _flat(settings: object, above: str = "") -> dict[str, str]:
    """Return nested settings by their dotted names, values as JSON."""
    if isinstance(settings, Mapping):
        parts = settings.items()
    elif isinstance(settings, list) and any(isinstance(one, dict) for one in settings):
        parts = dict(enumerate(settings)).items()
    else:
        return {above: json.dumps(settings)}
    found: dict[str, str] = {}
    for key, value in parts:
        found |= _flat(value, f"{above}.{key}" if above else str(key))
    return found
