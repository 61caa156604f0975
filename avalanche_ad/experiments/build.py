"""From a recipe to the objects of a run: data, stream, model and strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from avalanche.training.templates.base import BaseTemplate

from avalanche_ad.benchmarks import AnomalyBenchmark, anomaly_benchmark
from avalanche_ad.datasets import AnomalyData, SyntheticAD, open_dataset
from avalanche_ad.errors import AvalancheADError, RecipeError
from avalanche_ad.experiments.recipe import (
    BenchmarkRecipe,
    ExperimentRecipe,
    SyntheticRecipe,
    check_arguments,
    check_names,
    resolve,
)
from avalanche_ad.features import Backbone, FeatureCache, make_backbone
from avalanche_ad.models import AnomalyModel
from avalanche_ad.training import (
    DynamicFeatureGMM,
    DynamicFlowGMM,
    DynamicPackNetFlowGMM,
    FlowGMMLoss,
    make_optimizer,
)
from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    FiniteLossPlugin,
    GradientClippingPlugin,
    IntraClassWarmupPlugin,
    WarmupCosinePlugin,
)

__all__ = [
    "build_backbone",
    "build_benchmark",
    "build_model",
    "build_strategy",
    "check_strategy",
    "open_data",
]


def open_data(recipe: BenchmarkRecipe, root: Path | None) -> AnomalyData:
    """Open the recipe's data set."""
    if recipe.dataset == "synthetic":
        drawn = recipe.synthetic or SyntheticRecipe()
        return SyntheticAD(
            recipe.image_size, categories=recipe.selection, **drawn.model_dump()
        )
    return open_dataset(recipe.dataset, root, recipe.selection)


def build_backbone(recipe: BenchmarkRecipe) -> Backbone:
    """Build the recipe's frozen backbone."""
    return make_backbone(recipe.features.backbone, **recipe.features.options)


def build_benchmark(
    recipe: BenchmarkRecipe,
    data: AnomalyData,
    backbone: Backbone,
    cache: FeatureCache,
    device: torch.device,
    progress: Callable[[str, int, int], None] | None = None,
) -> AnomalyBenchmark:
    """Build the recipe's feature stream."""
    per_experience = recipe.classes_per_experience
    return anomaly_benchmark(
        data,
        n_experiences=recipe.n_experiences,
        classes_per_experience=per_experience,
        experiences=recipe.experiences,
        class_order=recipe.class_order,
        seed=recipe.order_seed,
        blurry=recipe.blurry,
        blurry_seed=recipe.blurry_seed,
        image_size=recipe.image_size,
        mask_size=recipe.mask_size,
        backbone=backbone,
        cache=cache,
        feature_dtype=recipe.features.dtype,
        device=str(device),
        progress=progress,
    )


def build_model(
    recipe: BenchmarkRecipe, benchmark: AnomalyBenchmark, seed: int
) -> tuple[AnomalyModel, dict[str, Any]]:
    """Build the recipe's model with room for all categories of the stream.

    :return: the model, and the arguments to build it again beside layout and room.
    """
    assert benchmark.layout is not None
    options = {**recipe.model.model_dump(exclude={"type", "packnet"}), "seed": seed}
    made: type[DynamicFlowGMM | DynamicFeatureGMM] = DynamicFeatureGMM
    if recipe.model.type == "flow_gmm":
        made = DynamicPackNetFlowGMM if recipe.model.packnet else DynamicFlowGMM
        if recipe.model.packnet == "flow":
            options["own_mixtures"] = False
    count = len(benchmark.category_names)
    return made(benchmark.layout, num_categories=count, **options), options


def build_strategy(
    recipe: ExperimentRecipe,
    model: AnomalyModel,
    device: torch.device,
    metrics: Sequence[Any],
    loggers: Sequence[Any],
    mask_size: int,
    extra_plugins: Sequence[Any] = (),
) -> Any:  # noqa: ANN401
    """Build the recipe's Avalanche strategy with its plugins and the training aids.

    The strategy's own plugins come first, then schedule, clipping, the check of the
    loss and the calibration of the scores.

    :raises RecipeError: when a class or an argument does not exist or fit.
    """
    training = recipe.benchmark.training
    plugins = [
        _made(made, _objects(arguments), f"plugin {made.__name__}")
        for made, arguments in _plugins(recipe)
    ]
    if training.epochs:
        plugins += [
            WarmupCosinePlugin(training.warmup_epochs, training.final_lr_factor),
            GradientClippingPlugin(training.gradient_clip),
            IntraClassWarmupPlugin(training.intra_class_warmup_epochs),
            FiniteLossPlugin(),
        ]
    plugins += [CalibrationPlugin(training.calibration_images, mask_size)]
    plugins += extra_plugins
    strategy = resolve(recipe.strategy.strategy, (BaseTemplate,), "strategy")
    arguments = {
        "model": model,
        "optimizer": make_optimizer(
            model,
            training.lr,
            training.betas,
            training.weight_decay,
            training.centers_lr_factor,
        ),
        "criterion": FlowGMMLoss(
            training.lambda1, training.lambda2, training.label_smoothing
        ),
        "train_mb_size": training.batch_size,
        "train_epochs": training.epochs,
        "eval_mb_size": training.eval_batch_size,
        "device": device,
        "plugins": plugins,
        "evaluator": EvaluationPlugin(
            *metrics, loggers=list(loggers), strict_checks=False
        ),
        **recipe.strategy.options,
    }
    check_arguments(strategy, arguments, "strategy")
    return _made(strategy, arguments, f"strategy {strategy.__name__}")


def check_strategy(recipe: ExperimentRecipe) -> None:
    """Refuse a strategy that cannot be built, before any image is read.

    :raises RecipeError: when a class or an argument does not exist.
    """
    _plugins(recipe)
    strategy = resolve(recipe.strategy.strategy, (BaseTemplate,), "strategy")
    check_names(strategy, recipe.strategy.options, "strategy")


def _plugins(recipe: ExperimentRecipe) -> list[tuple[type, dict[str, Any]]]:
    """Return the classes of the recipe's plugins with their arguments, checked."""
    found = []
    for plugin in recipe.strategy.plugins:
        made = resolve(plugin.type, (BasePlugin,), "plugin")
        check_arguments(made, plugin.arguments, "plugin")
        for value in plugin.arguments.values():
            if _is_object(value):
                _storage_policy(value)
        found.append((made, plugin.arguments))
    return found


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and "type" in value


def _storage_policy(table: dict[str, Any]) -> tuple[type, dict[str, Any]]:
    """Return the storage policy's class that a table names, and its arguments."""
    arguments = {key: value for key, value in table.items() if key != "type"}
    made = resolve(table["type"], (ExemplarsBuffer,), "storage policy")
    check_arguments(made, arguments, "storage policy")
    return made, arguments


def _objects(arguments: dict[str, Any]) -> dict[str, Any]:
    """Build the objects that tables with a ``type`` among the arguments describe."""
    built = dict(arguments)
    for name, value in arguments.items():
        if _is_object(value):
            made, own = _storage_policy(value)
            built[name] = _made(made, own, f"storage policy {made.__name__}")
    return built


def _made(made: type, arguments: dict[str, Any], what: str) -> Any:  # noqa: ANN401
    try:
        return made(**arguments)
    except AvalancheADError:
        raise
    except (TypeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecipeError(f"{what} cannot be built: {reason}") from error
