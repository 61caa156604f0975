"""All that decides a run's results: as it is recorded, and as it is read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avalanche_ad.experiments.recipe import ExperimentRecipe

__all__ = ["run_configuration", "updated_configuration"]

_BEFORE = {"position_calibration": False}
"""Options of the model whose default was not how runs were made before they came."""
_WORDS = {
    "benchmark": {"title": True, "published": True},
    "strategy": {"title": True, "summary": True, "reference": True},
}


def run_configuration(recipe: ExperimentRecipe, data: Path | None) -> dict[str, Any]:
    """Return all that decides a run's results, beside the seed, as JSON values.

    What recipes say to people (titles, published numbers) is left out: to change it
    makes no finished run another one.

    :param recipe: the merged recipe.
    :param data: the data set's folder as the user gave it.
    """
    return {
        **recipe.model_dump(mode="json", exclude=_WORDS),
        "data": None if data is None else str(data),
    }


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
