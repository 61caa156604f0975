"""What every plugin adds, alone and together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from avalanche_ad.evaluation.continual import difference
from avalanche_ad.experiments.configuration import SHARED_OPTIONS, SHARING_PLUGINS
from avalanche_ad.experiments.studies.bench import Bench, Load, Measurements
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.recipes import ExperimentRecipe, PluginRecipe
from avalanche_ad.reporting.figures import over_seeds, rows_figure
from avalanche_ad.reporting.paired import interval
from avalanche_ad.reporting.tables import Section

REFERENCES = ("naive", "replay", "joint", "feature_gmm", "feature_gmm_10")
ALONE = (
    "center_init",
    "center_freeze",
    "entropy_calibration",
    "drift_regularization",
    "statistics_rehearsal",
    "alignment_statistics",
    "alignment_exemplars",
    "alignment_snapshot",
    "alignment_sdc",
    "alignment_ldc",
    "incremental_mixture",
)
WHOLE = "gmm_alignment"
MEASURES = (
    ("image AUROC", "final", "image_auroc"),
    ("pixel AUROC", "final", "pixel_auroc"),
    ("image forgetting", "forgetting", "image_auroc"),
    ("pixel forgetting", "forgetting", "pixel_auroc"),
)


def variants(load: Load) -> dict[str, ExperimentRecipe]:
    """Return the recipes compared: references, each plugin alone, all, all but one."""
    found = {name: load(name) for name in (*REFERENCES, *ALONE, WHOLE)}
    whole = found[WHOLE]
    for plugin in whole.strategy.plugins:
        rest = without(whole.strategy.plugins, plugin)
        name = f"{WHOLE} without {plugin.type.rsplit('.', 1)[-1]}"
        strategy = whole.strategy.model_copy(update={"plugins": rest})
        found[name] = whole.model_copy(
            update={"strategy": strategy, "strategy_name": name}
        )
    return found


def without(
    plugins: Sequence[PluginRecipe], gone: PluginRecipe
) -> tuple[PluginRecipe, ...]:
    """Return plugins without one of them.

    What it said of the statistics that they share is said by the next of them.
    """
    left = [plugin for plugin in plugins if plugin is not gone]
    shared = {
        name: value
        for name, value in gone.arguments.items()
        if name in SHARED_OPTIONS and gone.type in SHARING_PLUGINS
    }
    for number, plugin in enumerate(left):
        if plugin.type in SHARING_PLUGINS:
            arguments = {**shared, **plugin.arguments}
            left[number] = PluginRecipe(type=plugin.type, **arguments)
            break
    return tuple(left)


def measure(bench: Bench, seed: int) -> Measurements:
    """Run every variant, or read its results where it was run before."""
    found: Measurements = {}
    every = variants(bench.load)
    for number, (name, recipe) in enumerate(every.items()):
        bench.report(f"ablation: {name}", number, len(every))
        results = bench.run(recipe, seed)
        found[name] = {
            title: results[section][metric] for title, section, metric in MEASURES
        }
        found[name]["statistics MB"] = results["memory_mb"]["statistics"]
        found[name]["exemplars MB"] = results["memory_mb"]["exemplars"]
    return {"variants": found}


def sections(results: Sequence[Measurements]) -> list[Section]:
    """Return the values of every variant, and what it adds to naive training."""
    titles = [title for title, _, _ in MEASURES]
    lines = []
    for name in results[0]["variants"]:
        own = [found["variants"][name] for found in results]
        naive = [found["variants"]["naive"] for found in results]
        cells = [interval([one[title] for one in own]).text() for title in titles]
        gains = [
            interval(
                [
                    difference(a[title], b[title])
                    for a, b in zip(own, naive, strict=True)
                ]
            ).text(sign="+")
            for title in titles[:2]
        ]
        kept = [one["statistics MB"] + one["exemplars MB"] for one in own]
        lines.append([name, *cells, *gains, f"{np.mean(kept):.2f}"])
    caption = (
        "After the last task, category inferred; forgetting: positive = forgot. Gain: "
        "over naive training with the same seed. Kept: images and statistics, MB. "
        "Means over seeds with 95 % confidence intervals: a gain whose interval holds "
        "0 is none."
    )
    head = ["", *titles, "image gain", "pixel gain", "kept"]
    return [Section("Every plugin", caption, head, lines)]


def figure(results: Sequence[Measurements]) -> Figure:
    """Draw image and pixel AUROC of every variant."""

    def shown(name: str) -> str:
        return name.removeprefix(f"{WHOLE} ").removesuffix("Plugin")

    names = list(results[0]["variants"])
    panels = {
        title: {
            shown(name): interval([one["variants"][name][title] for one in results])
            for name in names
        }
        for title, _, _ in MEASURES[:2]
    }
    groups = {
        "references": REFERENCES,
        "naive + one plugin": ALONE,
        f"{WHOLE}, whole or without one": [
            shown(name) for name in names if name.startswith(WHOLE)
        ],
    }
    title = f"What every plugin adds ({over_seeds(len(results))})"
    return rows_figure(panels, groups, title, ("naive", WHOLE))


STUDY = Study(
    title="Ablation",
    question=(
        "What does every plugin add to naive training alone, and what does the "
        "recommended combination lose without each of its own?"
    ),
    measure=measure,
    sections=sections,
    figure=figure,
    recipes=variants,
)
