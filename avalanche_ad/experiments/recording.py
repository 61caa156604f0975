"""What a run is of, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.datasets.roots import Roots
from avalanche_ad.experiments.accounting import memory_mb
from avalanche_ad.experiments.configuration import run_configuration
from avalanche_ad.experiments.folder import RunFolder
from avalanche_ad.experiments.fresh_normals import FINGERPRINT
from avalanche_ad.experiments.own_code import own_code
from avalanche_ad.experiments.provenance import (
    features_id,
    package_versions,
    peak_rss_mb,
)
from avalanche_ad.experiments.results import (
    SCHEMA,
    summarise,
)
from avalanche_ad.experiments.run_state import (
    RunState,
    only,
)
from avalanche_ad.features import Backbone
from avalanche_ad.models.registry import MODELS
from avalanche_ad.models.storage import save_model
from avalanche_ad.recipes import ExperimentRecipe
from avalanche_ad.training.plugins import CalibrationPlugin

__all__ = ["run_identity", "run_results", "save_run_model"]


def run_identity(
    recipe: ExperimentRecipe,
    data_root: Roots,
    seed: int,
    device: torch.device,
    backbone: Backbone,
    continued: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what a run is of, as JSON values; its data's digests come later."""
    configuration = run_configuration(recipe, data_root)
    return {
        "configuration": json.loads(json.dumps(configuration)),
        "seed": seed,
        "code": own_code(recipe.folders.values()),
        "continued": continued,
        "versions": {
            **package_versions(),
            "device": str(device),
            "threads": str(torch.get_num_threads()),
            # one name, one file: its weights may be others than they were
            "features": features_id(backbone),
        },
    }


def run_results(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    state: RunState,
    identity: Mapping[str, Any],
    waited: float,
) -> dict[str, Any]:
    """Return what ``results.json`` holds, but for the commit.

    :param waited: seconds until all features were there.
    """
    seconds = {
        "features": waited,
        **state.seconds,
        "total": waited + sum(state.seconds.values()),
    }
    versions = dict(identity["versions"])
    if state.begun_with:
        versions["begun_with"] = "; ".join(state.begun_with)
    return {
        "schema": SCHEMA,
        "benchmark": recipe.benchmark_name,
        "strategy": recipe.strategy_name,
        "seed": identity["seed"],
        "categories": [list(names) for names in benchmark.experiences],
        "versions": versions,
        "config": identity["configuration"],
        "data": identity["data"],
        "git": None,
        **summarise(
            [*state.metrics.history, *state.ahead],
            benchmark.experiences,
            state.metrics.names,
            baseline=state.untrained,
        ),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "peak_rss_mb": peak_rss_mb(),
        "memory_mb": memory_mb(
            state.strategy, benchmark, recipe.benchmark.features.dtype
        ),
        **{key: identity[key] for key in ("code", "continued") if identity[key]},
    }


def save_run_model(
    recipe: ExperimentRecipe,
    benchmark: AnomalyBenchmark,
    state: RunState,
    folder: RunFolder,
) -> None:
    """Save the model with all that prediction needs."""
    last = len(benchmark.experiences) - 1
    calibration = only(CalibrationPlugin, state.strategy.plugins)
    features = recipe.benchmark.features.model_dump(mode="json")
    if "weights" in features["options"]:
        # prediction may run in another folder
        weights = Path(features["options"]["weights"]).resolve()
        features["options"]["weights"] = str(weights)
    model, asked = state.strategy.model, recipe.benchmark.model.type
    made, name = getattr(type(model), "plain", type(model)), asked
    if MODELS.find(asked) is not made:  # one of several that the type stands for
        own = MODELS.own.get(made.kind) is made
        name = made.kind if own else f"{made.__module__}.{made.__qualname__}"
    save_model(
        model,
        folder.partial,
        name,
        state.options,
        {
            "categories": list(benchmark.category_names),
            "experiences": [list(names) for names in benchmark.experiences],
            "image_size": benchmark.image_size,
            "mask_size": benchmark.mask_size,
            "backbone": features,
            "thresholds": {
                "f1max": {
                    row["category"]: row["image_threshold"]
                    for row in state.metrics.history
                    if row["training_experience"] == last
                },
                "quantile": {
                    benchmark.category_names[category]: value
                    for category, value in calibration.thresholds.items()
                },
            },
            "quantile": calibration.quantile,
            "held_out": {
                benchmark.category_names[category]: held_out.scores
                for category, held_out in calibration.held_out.items()
            },
            "density_held_out": {
                benchmark.category_names[category]: held_out
                for category, held_out in calibration.density_held_out.items()
            },
            # so that none of them is taken for a new one
            "training_images": {
                name: [image[:FINGERPRINT] for image in images]
                for name, images in state.training_images.items()
            },
        },
    )
