"""The names of classes that a benchmark states, looked up: one function a key.

What holds the classes is imported when one is looked up, since it takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avalanche_ad.recipes.model_options import model_class
from avalanche_ad.recipes.schema import BenchmarkRecipe
from avalanche_ad.registry.arguments import check_options

__all__ = ["LOOKUPS"]


def _dataset(recipe: BenchmarkRecipe, folder: Path | None) -> None:
    from avalanche_ad.datasets.registry import DATASETS

    DATASETS.find(recipe.dataset, folder)


def _dataset_options(recipe: BenchmarkRecipe, folder: Path | None) -> None:
    from avalanche_ad.datasets.registry import DATASETS

    reader, called = DATASETS.find(recipe.dataset), f"dataset {recipe.dataset!r}"
    check_options(reader, recipe.dataset_options, called, ("root", "categories"))


def _backbone(recipe: BenchmarkRecipe, folder: Path | None) -> None:
    from avalanche_ad.features.registry import check_backbone

    check_backbone(recipe.features.backbone, recipe.features.options, folder)


def _model(recipe: BenchmarkRecipe, folder: Path | None) -> None:
    model_class(recipe.model.type, folder)


def _score(recipe: BenchmarkRecipe, folder: Path | None) -> None:
    from avalanche_ad.models.scores import score_named

    if recipe.model.score_kind is not None:
        made = model_class(recipe.model.type)
        score_named(recipe.model.score_kind, made.maps, folder)


def _metrics(recipe: BenchmarkRecipe, folder: Path | None) -> None:
    if recipe.extra_metrics:
        from avalanche_ad.evaluation.registry import DEFAULT_METRICS, find_metrics

        find_metrics((*DEFAULT_METRICS, *recipe.extra_metrics), folder)


LOOKUPS: dict[str, Callable[[BenchmarkRecipe, Path | None], None]] = {
    "dataset": _dataset,
    "dataset_options": _dataset_options,
    "features.backbone": _backbone,
    "model.type": _model,
    "model.score_kind": _score,
    "extra_metrics": _metrics,
}
"""By key, what refuses a name that there is not.

It is given the folder of the file that states the key, where the class's module may be.
Once they have been called in this order, every class is found by its name alone.
"""
