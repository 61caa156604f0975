"""What a recipe may say: its sections, as values that are validated as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    model_validator,
)

from avalanche_ad.datasets.roots import Roots, as_roots
from avalanche_ad.errors import RecipeError
from avalanche_ad.recipes.model_options import DEFAULT_MODEL, model_options
from avalanche_ad.registry.options import (
    Difference,
    ModelOptions,
    Momentum,
    NonNegative,
    Options,
    Positive,
    Share,
)

__all__ = [
    "BenchmarkRecipe",
    "ExperimentRecipe",
    "FeaturesRecipe",
    "PluginRecipe",
    "PublishedRecipe",
    "StrategyRecipe",
    "SyntheticRecipe",
    "TrainingRecipe",
]

Names = Annotated[tuple[str, ...], Field(min_length=1)]


def _as_list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class FeaturesRecipe(Options):
    """``[features]``: the frozen backbone and how its features are kept.

    >>> FeaturesRecipe(backbone="filterbank").dtype
    'float16'
    """

    backbone: str = "embedded"
    dtype: Literal["float16", "float32"] = "float16"
    options: dict[str, Any] = {}


class SyntheticRecipe(Options):
    """``[synthetic]``: how much of the procedural data set is drawn, and from what.

    >>> SyntheticRecipe(train_images=5).test_normals
    24
    """

    seed: Annotated[int, Field(ge=0)] = 0
    train_images: Positive = 64
    test_normals: Positive = 24
    test_anomalies: Positive = 30


class TrainingRecipe(Options):
    """``[training]``: the budget, the same for every strategy; HGAD's by default.

    Not all of it is read by all: a ``feature_gmm`` trains nothing and reads the sizes
    of minibatches and ``calibration_images`` alone; under ``IncrementalMixturePlugin``
    the loss has no ``lambda1``, ``lambda2``, ``label_smoothing`` or
    ``intra_class_warmup_epochs``. With ``max_steps_per_category`` an experience of many
    images has fewer than ``epochs``, 0 for no limit.

    >>> TrainingRecipe(epochs=24).batch_size
    8
    """

    epochs: Annotated[int, Field(ge=0)] = 200
    max_steps_per_category: Annotated[int, Field(ge=0)] = 0
    batch_size: Positive = 8
    eval_batch_size: Positive = 16
    lr: Annotated[float, Field(gt=0)] = 2e-4
    betas: tuple[Momentum, Momentum] = (0.95, 0.99)
    weight_decay: NonNegative = 1e-4
    centers_lr_factor: NonNegative = 1.0
    warmup_epochs: NonNegative = 2.0
    final_lr_factor: NonNegative = 0.0
    gradient_clip: Annotated[float, Field(gt=0)] = 100.0
    lambda1: NonNegative = 1.0
    lambda2: NonNegative = 100.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.02
    intra_class_warmup_epochs: Annotated[int, Field(ge=0)] = 2
    calibration_images: Positive = 32


class PublishedRecipe(Options):
    """``[[published]]``: one result of others on this stream, to compare with.

    ``convention`` says what the values are: of the last model (``final``), the mean
    over the models after each experience (``step_mean``), or of one model trained on
    everything at once (``joint``); the three do not compare. Forgetting is positive
    where the method forgot. ``strategy`` names the shipped strategy that is the same
    method, if there is one. ``flips_auroc`` is set where the method's code turns an
    AUROC below 0.5 around, which hides forgetting.

    >>> PublishedRecipe(method="X", source="Y", convention="final", image_auroc=0.9)
    ... # doctest: +ELLIPSIS
    PublishedRecipe(method='X', source='Y', convention='final', ...)
    """

    method: str
    source: str
    convention: Literal["final", "step_mean", "joint"]
    strategy: str | None = None
    flips_auroc: bool = False
    image_auroc: Share | None = None
    pixel_auroc: Share | None = None
    image_forgetting: Difference | None = None
    pixel_forgetting: Difference | None = None
    image_auroc_by_experience: tuple[Share, ...] | None = None
    pixel_auroc_by_experience: tuple[Share, ...] | None = None


def _options_of_its_type(value: object, info: ValidationInfo) -> ModelOptions:
    """Return ``[model]`` as the options that its type has."""
    if isinstance(value, ModelOptions):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table, got {value!r}")
    name = value.get("type", DEFAULT_MODEL)
    try:
        options = model_options(name, (info.context or {}).get("folder"))
    except RecipeError as error:
        raise ValueError(str(error)) from None
    return options.model_validate({"type": name, **value})


def _default_model() -> ModelOptions:
    return model_options(DEFAULT_MODEL).model_validate({"type": DEFAULT_MODEL})


class BenchmarkRecipe(Options):
    """A stream: data set, order, sizes, features, model and budget.

    >>> order = (("bolt", "gear"), ("brush",))
    >>> stream = BenchmarkRecipe(title="Own", dataset="synthetic", experiences=order)
    >>> stream.selection, stream.model.type
    (('bolt', 'gear', 'brush'), 'flow_gmm')
    """

    title: str
    dataset: str
    data: Annotated[Names | None, BeforeValidator(_as_list)] = None
    categories: Names | None = None
    n_experiences: Positive | None = None
    classes_per_experience: Positive | tuple[Positive, ...] | None = None
    experiences: Annotated[tuple[Names, ...], Field(min_length=1)] | None = None
    class_order: Names | None = None
    order_seed: int | None = None
    blurry: Annotated[float, Field(ge=0, lt=1)] = 0.0
    blurry_seed: int = 0
    image_size: Annotated[int, Field(ge=16, le=8192)] = 256
    mask_size: Annotated[int, Field(ge=16, le=8192)] | None = None
    forward_transfer: bool = False
    extra_metrics: tuple[str, ...] = ()
    synthetic: SyntheticRecipe | None = None
    dataset_options: dict[str, Any] = {}
    features: FeaturesRecipe = FeaturesRecipe()
    model: Annotated[
        SerializeAsAny[ModelOptions], BeforeValidator(_options_of_its_type)
    ] = Field(default_factory=_default_model)
    training: TrainingRecipe = TrainingRecipe()
    published: tuple[PublishedRecipe, ...] = ()

    @property
    def selection(self) -> tuple[str, ...] | None:
        """The categories the stream uses, ``None`` for all the data set has."""
        named = [name for names in self.experiences or () for name in names]
        return self.categories or self.class_order or tuple(named) or None

    def data_roots(self, given: Roots = None) -> tuple[Path, ...]:
        """Return the folders of the data set: those given, or else the recipe's own.

        :raises DatasetError: when one is given twice.
        """
        return as_roots(given) or as_roots(self.data)

    @property
    def reader_options(self) -> dict[str, Any]:
        """What the data set's reader is given beside folder and categories."""
        drawn = self.synthetic.model_dump() if self.synthetic else {}
        return {**drawn, **self.dataset_options}

    @model_validator(mode="after")
    def _synthetic_only(self) -> BenchmarkRecipe:
        if self.synthetic is not None and self.dataset != "synthetic":
            raise ValueError(
                f"[synthetic] goes with dataset = 'synthetic', not {self.dataset!r}"
            )
        if self.data is not None and self.dataset == "synthetic":
            raise ValueError("dataset = 'synthetic' is drawn: leave 'data' out")
        return self


class PluginRecipe(BaseModel):
    """``[[plugins]]``: a plugin class and its arguments.

    >>> PluginRecipe(type="FrozenFlowPlugin", share=0.5).arguments
    {'share': 0.5}
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the plugin."""
        return dict(self.model_extra or {})


class StrategyRecipe(Options):
    """A strategy: an Avalanche class, its plugins, and what it overrides.

    >>> StrategyRecipe(title="Own", summary="As it comes.").strategy
    'avalanche.training.supervised.Naive'
    """

    title: str
    summary: str
    reference: str = ""
    strategy: str = "avalanche.training.supervised.Naive"
    options: dict[str, Any] = {}
    plugins: tuple[PluginRecipe, ...] = ()
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}


class ExperimentRecipe(Options):
    """A benchmark and a strategy, merged: what one run does.

    ``folders`` are those of files of the user's own, by what they state:
    ``"strategy"``, ``"dataset"``, ``"model.type"``, ``"features.backbone"``,
    ``"extra_metrics"``. Modules may be there that classes come from. They are no part
    of what is recorded: a moved file is the same recipe.

    >>> from avalanche_ad.recipes import load_experiment
    >>> recipe = load_experiment("synthetic_5x3", "replay", ["training.epochs=4"])
    >>> recipe.benchmark.training.epochs, recipe.strategy.plugins[0].arguments
    (4, {'mem_size': 192, 'batch_size_mem': 24})
    """

    benchmark_name: str
    strategy_name: str
    benchmark: BenchmarkRecipe
    strategy: StrategyRecipe
    folders: dict[str, Path] = Field(default={}, exclude=True, repr=False)

    @property
    def folder(self) -> Path | None:
        """The folder of the strategy's file, ``None`` for one of the package."""
        return self.folders.get("strategy")
