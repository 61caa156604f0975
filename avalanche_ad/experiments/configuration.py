"""All that decides a run's results: as it is recorded, read back and compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from avalanche_ad.datasets.roots import Roots
from avalanche_ad.recipes import ExperimentRecipe

__all__ = [
    "SHARED_OPTIONS",
    "SHARING_PLUGINS",
    "configuration_differences",
    "named_differences",
    "run_configuration",
    "updated_configuration",
]

SHARING_PLUGINS = tuple(
    f"{module}{name}"
    for module in ("avalanche_ad.training.plugins.", "")
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
    "benchmark": {"title": True, "published": True, "data": True},
    "strategy": {"title": True, "summary": True, "reference": True},
}
_PLACES = {"data", "features.options.weights"}
"""Where files are, which is not what they are: digests say that."""
_NAMES = {"benchmark_name": "benchmark", "strategy_name": "strategy's name"}
_STREAM = {
    *("benchmark", "dataset", "categories", "n_experiences", "classes_per_experience"),
    *("experiences", "class_order", "order_seed", "blurry", "blurry_seed"),
    *("forward_transfer", "synthetic", "dataset_options", "data"),
}
"""What says which images arrive when, and nothing of how they are learned."""
_UNSET = object()
_SHOWN = 3
_WIDTH = 40


def run_configuration(recipe: ExperimentRecipe, data: Roots) -> dict[str, Any]:
    """Return all that decides a run's results, beside the seed, as JSON values.

    What recipes say to people (titles, published numbers) is left out: to change it
    makes no finished run another one. An option that plugins share counts once, with
    the first that has it.

    :param recipe: the merged recipe.
    :param data: the data set's folder as the user gave it, or several; the recipe's own
        otherwise. It is kept for people to read: see :func:`configuration_differences`.
    """
    found = recipe.model_dump(mode="json", exclude=_WORDS)
    plugins = found["strategy"]["plugins"]
    found["strategy"]["plugins"] = _said_once(plugins)
    for later in ("extra_metrics", "dataset_options"):
        if not found["benchmark"][later]:  # as before there were any
            del found["benchmark"][later]
    roots = [str(root) for root in recipe.benchmark.data_roots(data)]
    return {**found, "data": roots if len(roots) > 1 else next(iter(roots), None)}


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
        # what a record names is not imported for reading it
        module = str(model.get("type", "")).rpartition(".")[0]
        if module and module not in sys.modules:
            return configuration
        recipe = ExperimentRecipe.model_validate(
            {
                **whole,
                "benchmark": {"title": "", **whole["benchmark"], "model": model},
                "strategy": {**words, **whole["strategy"]},
            }
        )
    except (KeyError, TypeError, ValueError):
        return configuration  # of no version we know
    return {**run_configuration(recipe, None), "data": configuration.get("data")}


def configuration_differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, stream: bool = True
) -> list[str]:
    """Return what differs between the configurations of two runs, a line each.

    Keys are spelt as ``--set`` takes them: ``training.epochs 60 → 4``,
    ``plugins.0.mem_size unset → 64``. Where data set and weight file lie does not
    count, only whether there is one: a moved folder holds the same images, and what
    they are is told by ``data`` and ``versions.features`` of the results.

    :param before: what :func:`run_configuration` returned once, in any version.
    :param now: likewise.
    :param stream: whether it counts which images arrive when.
    :return: an empty list for runs of one recipe.
    """
    old = _leaves(updated_configuration(before))
    new = _leaves(updated_configuration(now))
    found = []
    for key in dict.fromkeys([*old, *new]):
        was, value = old.get(key, _UNSET), new.get(key, _UNSET)
        place = key in _PLACES and (key == "data" or _UNSET not in (was, value))
        if key.partition(".")[0] in _STREAM and not stream:
            continue
        if was != value and not place:
            found.append(f"{key} {_short(was)} → {_short(value)}")
    return found


def named_differences(differences: Sequence[str]) -> str:
    """Return differences as a part of one line, the first few in words."""
    more = len(differences) - _SHOWN
    shown = "; ".join(differences[:_SHOWN])
    return f"{shown}; and {more} more" if more > 0 else shown


def _leaves(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration by keys as ``--set`` takes them.

    What a strategy's file says of model and training is in the benchmark's part too,
    merged: it decides nothing by itself.
    """
    found: dict[str, Any] = {}
    for key, value in configuration.items():
        if key == "benchmark":
            found |= _flat(value, "")
        elif key == "strategy" and isinstance(value, Mapping):
            own = {k: v for k, v in value.items() if k not in ("model", "training")}
            own["plugins"] = dict(enumerate(own.get("plugins") or ()))
            found |= _flat(own, "")
        else:
            found |= _flat(value, _NAMES.get(key, key))
    return found


def _flat(value: object, above: str) -> dict[str, Any]:
    parts: Mapping[Any, Any]
    if isinstance(value, Mapping):
        parts = value
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        parts = dict(enumerate(value))
    else:  # a key that came later was not set before
        return {} if value is None else {above: value}
    found: dict[str, Any] = {}
    for key, one in parts.items():
        found |= _flat(one, f"{above}.{key}" if above else str(key))
    return found


def _short(value: object) -> str:
    if value is _UNSET:
        return "unset"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"
