"""From a recipe to the objects of a run: data, stream, model and strategy."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from avalanche.training.templates.base import BaseTemplate

from avalanche_ad.benchmarks import AnomalyBenchmark, anomaly_benchmark
from avalanche_ad.benchmarks.order import split_categories
from avalanche_ad.datasets import (
    DATASETS,
    AnomalyData,
    category_digests,
    open_dataset,
)
from avalanche_ad.datasets.roots import Roots
from avalanche_ad.errors import RecipeError
from avalanche_ad.evaluation import DEFAULT_METRICS, AnomalyMetric
from avalanche_ad.evaluation.registry import find_metrics
from avalanche_ad.experiments.provenance import features_id
from avalanche_ad.experiments.unsupported import (
    UNSUPPORTED_ARGUMENTS,
    find_plugin,
    resolve,
)
from avalanche_ad.features import Backbone, FeatureCache, make_backbone
from avalanche_ad.models import AnomalyModel
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.models.registry import MODELS
from avalanche_ad.recipes import (
    BenchmarkRecipe,
    ExperimentRecipe,
)
from avalanche_ad.recipes.names import LOOKUPS
from avalanche_ad.registry.arguments import (
    check_arguments,
    check_names,
    check_types,
)
from avalanche_ad.registry.building import built
from avalanche_ad.training import dynamic, make_optimizer
from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    FiniteLossPlugin,
    FitExperiencePlugin,
    GradientClippingPlugin,
    IntraClassWarmupPlugin,
    PaintedDefectsPlugin,
    StepLimitPlugin,
    WarmupCosinePlugin,
)
from avalanche_ad.training.plugins.requirements import check_positions
from avalanche_ad.training.plugins.statistics_keeper import (
    StatisticsKeeper,
    agreed_options,
)

__all__ = [
    "build_backbone",
    "build_benchmark",
    "build_metrics",
    "build_model",
    "build_strategy",
    "check_strategy",
    "data_digests",
    "features_now",
    "open_data",
    "planned_experiences",
]

_GIVEN = {
    *("model", "optimizer", "criterion", "device", "plugins", "evaluator"),
    *("train_mb_size", "train_epochs", "eval_mb_size"),
}


def open_data(recipe: BenchmarkRecipe, root: Roots) -> AnomalyData:
    """Open the recipe's data set, from the folders given or else the recipe's own."""
    return open_dataset(
        recipe.dataset,
        recipe.data_roots(root),
        recipe.selection,
        image_size=recipe.image_size,
        **recipe.reader_options,
    )


def data_digests(recipe: BenchmarkRecipe, root: Roots) -> dict[str, str] | None:
    """Return the digests of the recipe's data as it is now, by category.

    :return: None where a folder is gone or none given: finished runs are read without.
    :raises DatasetError: when something is there that is not as expected.
    """
    roots = recipe.data_roots(root)
    if DATASETS.find(recipe.dataset).needs_root and (
        not roots or not all(one.is_dir() for one in roots)
    ):
        return None
    return category_digests(open_data(recipe, root))


def features_now(recipe: BenchmarkRecipe) -> str | None:
    """Return what a weight file of the user's own gives now, see :func:`features_id`.

    :return: None for a backbone without one, and where the file is gone: finished runs
        are read without.
    """
    weights = recipe.features.options.get("weights")
    if weights is None or not Path(weights).is_file():
        return None
    return features_id(build_backbone(recipe))


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
    learned: Sequence[Sequence[str]] = (),
) -> AnomalyBenchmark:
    """Build the recipe's feature stream, see :func:`anomaly_benchmark`."""
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
        learned=learned,
        painted=recipe.model.learns_defects,
    )


def planned_experiences(recipe: BenchmarkRecipe, data: AnomalyData) -> list[list[str]]:
    """Return the categories of each experience, before any image is read."""
    return split_categories(
        data.categories,
        n_experiences=recipe.n_experiences,
        classes_per_experience=recipe.classes_per_experience,
        experiences=recipe.experiences,
        class_order=recipe.class_order,
        seed=recipe.order_seed,
    )


def build_metrics(recipe: ExperimentRecipe) -> tuple[AnomalyMetric, ...]:
    """Return what the recipe has measured: what always is, and what it names.

    :raises RecipeError: when a metric does not exist or cannot be made.
    """
    names = (*DEFAULT_METRICS, *recipe.benchmark.extra_metrics)
    return find_metrics(names, recipe.folders.get("extra_metrics"))


def build_model(
    recipe: BenchmarkRecipe, benchmark: AnomalyBenchmark, seed: int
) -> tuple[AnomalyModel, dict[str, Any]]:
    """Build the recipe's model with room for all categories of the stream.

    :return: the model, and the arguments to build it again beside layout and room.
    """
    assert benchmark.layout is not None
    plain, options = MODELS.find(recipe.model.type).built_from(recipe.model)
    options["seed"] = seed
    count = len(benchmark.category_names)
    arguments = {"layout": benchmark.layout, "num_categories": count, **options}
    what = f"model {recipe.model.type!r}"
    model: AnomalyModel = built(dynamic(plain), arguments, what)
    model.memory()  # told now if it is of no kind there is
    for name, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise RecipeError(
                f"{what} cannot be saved: {name} of its state is no tensor; plain "
                "values are made one by avalanche_ad.models.settings.settings_tensor"
            )
    return model, options


def build_strategy(
    recipe: ExperimentRecipe,
    model: AnomalyModel,
    device: torch.device,
    metrics: Sequence[Any],
    loggers: Sequence[Any],
    mask_size: int,
    extra_plugins: Sequence[Any] = (),
) -> Any:
    """Build the recipe's Avalanche strategy with its plugins and the training aids.

    The strategy's own plugins come first, then schedule, clipping, the check of the
    loss and the calibration of the scores.

    :raises RecipeError: when a class or an argument does not exist or fit.
    """
    training = recipe.benchmark.training
    plugins = [
        built(made, _objects(made, arguments, recipe.folder), f"plugin {made.__name__}")
        for made, arguments in _plugins(recipe)
    ]
    criterion = model.criterion(**training.model_dump())
    if training.max_steps_per_category:
        # before those that go by the number of epochs
        plugins = [StepLimitPlugin(training.max_steps_per_category), *plugins]
    if training.epochs:
        plugins += [
            WarmupCosinePlugin(training.warmup_epochs, training.final_lr_factor),
            GradientClippingPlugin(training.gradient_clip),
            FiniteLossPlugin(),
        ]
    if training.epochs and hasattr(criterion, "intra"):
        plugins += [IntraClassWarmupPlugin(training.intra_class_warmup_epochs)]
    fits = any(isinstance(plugin, FitExperiencePlugin) for plugin in plugins)
    if not model.trained and not fits:
        plugins = [FitExperiencePlugin(), *plugins]
    if recipe.benchmark.model.learns_defects:
        plugins += [PaintedDefectsPlugin()]
    plugins += [CalibrationPlugin(training.calibration_images, mask_size)]
    plugins += extra_plugins
    strategy = _strategy(recipe)
    arguments = {
        "model": model,
        "optimizer": make_optimizer(
            model,
            training.lr,
            training.betas,
            training.weight_decay,
            training.centers_lr_factor,
        ),
        "criterion": criterion,
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
    return built(strategy, arguments, f"strategy {strategy.__name__}")


def check_strategy(recipe: ExperimentRecipe) -> None:
    """Refuse a strategy that cannot be built or cannot learn, before any image is read.

    :raises RecipeError: when a class or an argument does not exist, an argument is
        known to break, or the strategy does not fit the stream.
    :raises TrainingError: when plugins contradict each other or the model's kernel, or
        an option has no effect.
    """
    stream = recipe.benchmark
    # modules beside the recipes' files are found by their names alone from here on
    for key, look_up in LOOKUPS.items():
        look_up(stream, recipe.folders.get(key))
    plugins = _plugins(recipe)
    strategy = _strategy(recipe)
    check_names(strategy, recipe.strategy.options, "strategy")
    if given := sorted(_GIVEN & recipe.strategy.options.keys()):
        raise RecipeError(
            f"strategy {strategy.__name__}: {given[0]} is no option, since every "
            "strategy is given it: take it out of [options]; the budget is set in "
            "[training]"
        )
    _check_values(strategy, recipe.strategy.options, "strategy")
    made, _ = MODELS.find(stream.model.type).built_from(stream.model)
    if stream.blurry and not made.repeats_categories:
        raise RecipeError(
            f"the model {made.kind} cannot learn a stream with blurry = "
            f"{stream.blurry:g}, where categories come back after their task is over: "
            "set blurry = 0, or take another strategy"
        )
    if issubclass(made, FlowModel):
        for plugin, _ in plugins:
            check_positions(getattr(stream.model, "kernel", 1), plugin)
    keepers = [
        built(made, arguments, f"plugin {made.__name__}")
        for made, arguments in plugins
        if issubclass(made, StatisticsKeeper)
    ]
    for keeper in keepers:
        agreed_options(keepers, keeper)
    for plugin, _ in plugins:
        if stream.blurry and getattr(plugin, "needs_disjoint_categories", False):
            raise RecipeError(
                f"plugin {plugin.__name__} goes by the categories of each experience, "
                f"and with blurry = {stream.blurry:g} nearly every one holds them all: "
                "set blurry = 0, or take another strategy"
            )


def _strategy(recipe: ExperimentRecipe) -> type:
    """Return the class of the recipe's strategy."""
    name = recipe.strategy.strategy
    return resolve(name, (BaseTemplate,), "strategy", recipe.folder)


def _plugins(recipe: ExperimentRecipe) -> list[tuple[type, dict[str, Any]]]:
    """Return the classes of the recipe's plugins with their arguments, checked."""
    found = []
    for plugin in recipe.strategy.plugins:
        made = find_plugin(plugin.type, recipe.folder)
        check_arguments(made, plugin.arguments, "plugin")
        _check_values(made, plugin.arguments, "plugin")
        for name, value in plugin.arguments.items():
            if isinstance(value, dict) or name == "storage_policy":
                _storage_policy(value, made, name, recipe.folder)
        found.append((made, plugin.arguments))
    return found


def _check_values(made: type, arguments: Mapping[str, Any], what: str) -> None:
    """Refuse values of a wrong type, and what is known to break a class of Avalanche.

    :raises RecipeError: with the reason.
    """
    values = {key: one for key, one in arguments.items() if not isinstance(one, dict)}
    check_types(made, values, what)
    known = UNSUPPORTED_ARGUMENTS.get(made.__name__)
    if known is None or not made.__module__.startswith("avalanche."):
        return
    name, refused, reason = known
    default = inspect.signature(made).parameters[name].default
    if arguments.get(name, default) == refused:
        given = "" if name in arguments else ", its default"
        raise RecipeError(
            f"{what} {made.__name__} cannot work here with {name} = {refused!r}"
            f"{given}: {reason}"
        )


def _storage_policy(
    table: object, plugin: type, argument: str, folder: Path | None
) -> tuple[type, dict[str, Any]]:
    """Return the storage policy's class that a table names, and its arguments.

    :param plugin: whose argument the table is.
    :param folder: where its module may be.
    :raises RecipeError: when it is no such table.
    """
    where = f"plugin {plugin.__name__}: {argument}"
    if not isinstance(table, dict) or "type" not in table:
        found = f"keys {list(table)}" if isinstance(table, dict) else repr(table)
        raise RecipeError(
            f"{where}: expected a table with the 'type' of a storage policy, such as "
            "'avalanche.training.storage_policy.ClassBalancedBuffer', and its "
            f"arguments, got {found}"
        )
    arguments = {key: value for key, value in table.items() if key != "type"}
    made = resolve(table["type"], (ExemplarsBuffer,), f"{where}: type", folder)
    check_arguments(made, arguments, "storage policy")
    _check_values(made, arguments, "storage policy")
    tables = [name for name, value in arguments.items() if isinstance(value, dict)]
    if tables:
        raise RecipeError(
            f"{where}: {made.__name__} takes no table as {tables[0]}: leave it out"
        )
    return made, arguments


def _objects(
    plugin: type, arguments: dict[str, Any], folder: Path | None
) -> dict[str, Any]:
    """Build the storage policies that tables among a plugin's arguments describe."""
    made_of = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, dict):
            made, own = _storage_policy(value, plugin, name, folder)
            made_of[name] = built(made, own, f"storage policy {made.__name__}")
    return made_of
