"""All that decides a run's results: as it is recorded, and as it is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avalanche_ad.experiments.recipe import ExperimentRecipe

__all__ = [
    "SHARED_OPTIONS",
    "SHARING_PLUGINS",
    "run_configuration",
    "updated_configuration",
]

SHARING_PLUGINS = tuple(
    f"avalanche_ad.training.plugins.{name}"
    for name in (
        "DriftRegularizationPlugin",
        "GMMAlignmentPlugin",
        "IncrementalMixturePlugin",
        "StatisticsRehearsalPlugin",
    )
)
"""Plugins that keep statistics of features, the same ones where there are several."""
SHARED_OPTIONS = (
    "components",
    "statistics",
    "rank",
    "mean_field",
    "precision",
    "shrinkage",
    "max_positions",
    "max_iter",
    "seed",
)
"""Their options, of which one value holds for all of them."""

_BEFORE = {"position_calibration": False}
"""Options of the model whose default was not how runs were made before they came."""
_WORDS = {
    "benchmark": {"title": True, "published": True},
    "strategy": {"title": True, "summary": True, "reference": True},
}


def run_configuration(recipe: ExperimentRecipe, data: Path | None) -> dict[str, Any]:
    """Return all that decides a run's results, beside the seed, as JSON values.

    What recipes say to people (titles, published numbers) is left out: to change it
    makes no finished run another one. An option that plugins share counts once, with
    the first that has it.

    :param recipe: the merged recipe.
    :param data: the data set's folder as the user gave it.
    """
    found = recipe.model_dump(mode="json", exclude=_WORDS)
    plugins = found["strategy"]["plugins"]
    found["strategy"]["plugins"] = _said_once(plugins)
    return {**found, "data": None if data is None else str(data)}


def _said_once(plugins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return plugins without what an earlier one says of the statistics they share."""
    said: dict[str, Any] = {}
    found = []
    for plugin in plugins:
        own = dict(plugin)
        shares = own["type"] in SHARING_PLUGINS
        if shares and own.get("source", "statistics") == "statistics":
            for name in SHARED_OPTIONS:
                if name in own and name in said and said[name] == own[name]:
                    del own[name]
                elif name in own:
                    said.setdefault(name, own[name])
        found.append(own)
    return found


def updated_configuration(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recorded configuration as this version writes it.

    An option that came later has the value that the run was made with.

    :param configuration: what :func:`run_configuration` returned once.
    """
    words = {"title": "", "summary": ""}
    whole = {key: value for key, value in configuration.items() if key != "data"}
    try:
        model = {**_BEFORE, **whole["benchmark"]["model"]}
        recipe = ExperimentRecipe.model_validate(
            {
                **whole,
                "benchmark": {"title": "", **whole["benchmark"], "model": model},
                "strategy": {**words, **whole["strategy"]},
            }
        )
    except (KeyError, TypeError, ValueError):
        return configuration  # of no version we know
    data = configuration.get("data")
    return run_configuration(recipe, None if data is None else Path(data))
