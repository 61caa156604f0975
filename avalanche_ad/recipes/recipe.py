"""Recipes: strict TOML descriptions of streams and strategies.

A benchmark recipe says what is learned in which order and with what budget; a strategy
recipe says which Avalanche strategy and plugins learn it. Both are validated as a
whole before anything runs; unknown keys, wrong types and unknown names are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from avalanche_ad.datasets import DATASETS
from avalanche_ad.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "BenchmarkRecipe",
    "ExperimentRecipe",
    "FeatureGMMRecipe",
    "FeaturesRecipe",
    "FlowGMMRecipe",
    "PluginRecipe",
    "StrategyRecipe",
    "SyntheticRecipe",
    "TrainingRecipe",
    "list_recipes",
    "load_experiment",
    "read_toml",
    "unknown",
]

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Difference = Annotated[float, Field(ge=-1, le=1)]
ScoreName = Literal["product", "likelihood", "uncertainty"]

# A key of a stream that is given → keys of its base that go, since they say the same.
_REPLACES = {
    "n_experiences": ("classes_per_experience", "experiences"),
    "classes_per_experience": ("n_experiences", "experiences"),
    "experiences": (
        "n_experiences",
        "classes_per_experience",
        "categories",
        "class_order",
        "order_seed",
    ),
    "categories": ("class_order",),
    "class_order": ("categories", "order_seed"),
    # another data set has no use for names of this one's categories
    "dataset": ("synthetic", "categories", "class_order", "experiences"),
}
_NOT_INHERITED = ("title", "published")
_UNKNOWN = "extra_forbidden"  # pydantic's name of it
# What published numbers hold for: with another order they are of another stream.
_STREAM_KEYS = {*_REPLACES, "order_seed", "blurry", "blurry_seed"}


class _Strict(BaseModel):
    # JSON, in which results are kept, has no infinity
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FeaturesRecipe(_Strict):
    """``[features]``: the frozen backbone and how its features are kept."""

    backbone: str = "embedded"
    dtype: Literal["float16", "float32"] = "float16"
    options: dict[str, Any] = {}


class SyntheticRecipe(_Strict):
    """``[synthetic]``: how much of the procedural data set is drawn, and from what."""

    seed: Annotated[int, Field(ge=0)] = 0
    train_images: Positive = 64
    test_normals: Positive = 24
    test_anomalies: Positive = 30


class FlowGMMRecipe(_Strict):
    """``[model]`` of type ``flow_gmm``: HGAD by default, with position calibration.

    Benchmarks and strategies share the section, so some of it may not be read:
    ``likelihood_map`` is of scores without position calibration, ``pattern_period`` of
    centres that start in the pattern.
    """

    type: Literal["flow_gmm"] = "flow_gmm"
    couplings: Positive = 12
    hidden_ratio: Annotated[float, Field(gt=0)] = 2.0
    clamp: Annotated[float, Field(gt=0)] = 1.9
    condition_channels: Annotated[int, Field(ge=0, multiple_of=4)] = 256
    flow_start: Literal["random", "rotation"] = "random"
    centers_per_category: Positive = 10
    center_init: Literal["pattern", "orthogonal", "data"] = "pattern"
    pattern_period: Positive = 16
    position_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    score_kind: ScoreName = "product"
    smoothing_sigma: NonNegative = 4.0
    likelihood_map: Literal["log", "probability"] = "log"
    position_calibration: bool = True
    categories_at_start: bool = False
    packnet: bool | Literal["flow"] = False  # "flow": all but the mixtures

    @model_validator(mode="after")
    def _can_start(self) -> FlowGMMRecipe:
        if self.categories_at_start and self.center_init == "data":
            raise ValueError(
                "categories_at_start starts categories without data: expected "
                "center_init = 'pattern' or 'orthogonal', got 'data'"
            )
        if self.categories_at_start and self.packnet:
            raise ValueError(
                "categories_at_start cannot go with packnet, where a category belongs "
                "to the task that brings it: leave one of them out"
            )
        return self


class FeatureGMMRecipe(_Strict):
    """``[model]`` of type ``feature_gmm``: the flow-free reference, without epochs."""

    type: Literal["feature_gmm"]
    components: Positive = 1
    covariance_shrinkage: NonNegative = 1e-2
    max_positions: Positive = 20_000
    score_kind: ScoreName = "likelihood"
    smoothing_sigma: NonNegative = 4.0
    likelihood_map: Literal["log", "probability"] = "log"
    position_calibration: bool = True


class TrainingRecipe(_Strict):
    """``[training]``: the budget, the same for every strategy; HGAD's by default.

    Not all of it is read by all: a ``feature_gmm`` trains nothing and reads the sizes
    of minibatches and ``calibration_images`` alone; under ``IncrementalMixturePlugin``
    the loss has no ``lambda1``, ``lambda2``, ``label_smoothing`` or
    ``intra_class_warmup_epochs``.
    """

    epochs: Annotated[int, Field(ge=0)] = 200
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


class PublishedRecipe(_Strict):
    """``[[published]]``: one result of others on this stream, to compare with.

    ``convention`` says what the values are: of the last model (``final``), the mean
    over the models after each experience (``step_mean``), or of one model trained on
    everything at once (``joint``); the three do not compare. Forgetting is positive
    where the method forgot. ``strategy`` names the shipped strategy that is the same
    method, if there is one. ``flips_auroc`` is set where the method's code turns an
    AUROC below 0.5 around, which hides forgetting.
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


class BenchmarkRecipe(_Strict):
    """A stream: data set, order, sizes, features, model and budget."""

    title: str
    dataset: Literal[DATASETS]  # type: ignore[valid-type]
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
    features: FeaturesRecipe = FeaturesRecipe()
    model: Annotated[FlowGMMRecipe | FeatureGMMRecipe, Field(discriminator="type")] = (
        FlowGMMRecipe()
    )
    training: TrainingRecipe = TrainingRecipe()
    published: tuple[PublishedRecipe, ...] = ()

    @property
    def selection(self) -> tuple[str, ...] | None:
        """The categories the stream uses, ``None`` for all the data set has."""
        named = [name for names in self.experiences or () for name in names]
        return self.categories or self.class_order or tuple(named) or None

    @model_validator(mode="after")
    def _synthetic_only(self) -> BenchmarkRecipe:
        if self.synthetic is not None and self.dataset != "synthetic":
            raise ValueError(
                f"[synthetic] goes with dataset = 'synthetic', not {self.dataset!r}"
            )
        return self


class PluginRecipe(BaseModel):
    """``[[plugins]]``: a plugin class and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the plugin."""
        return dict(self.model_extra or {})


class StrategyRecipe(_Strict):
    """A strategy: an Avalanche class, its plugins, and what it overrides."""

    title: str
    summary: str
    reference: str = ""
    strategy: str = "avalanche.training.supervised.Naive"
    options: dict[str, Any] = {}
    plugins: tuple[PluginRecipe, ...] = ()
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}


class ExperimentRecipe(_Strict):
    """A benchmark and a strategy, merged: what one run does.

    ``folder`` is that of the strategy's file, where modules are that its classes may
    come from. It is no part of what is recorded: a moved file is the same recipe.
    """

    benchmark_name: str
    strategy_name: str
    benchmark: BenchmarkRecipe
    strategy: StrategyRecipe
    folder: Path | None = Field(default=None, exclude=True, repr=False)


def list_recipes(kind: Literal["strategies", "benchmarks"]) -> dict[str, Path]:
    """Return the recipes that come with the package, name → file."""
    found = sorted((Path(__file__).resolve().parent / kind).glob("*.toml"))
    if not found:
        raise RecipeError(
            f"no {kind} recipes found in the package at {Path(__file__).parent}: "
            "reinstall it"
        )
    return {path.stem: path for path in found}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    :raises RecipeError: when it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot read the recipe ({error.strerror})"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None


def load_experiment(
    benchmark: str, strategy: str, overrides: Sequence[str] = ()
) -> ExperimentRecipe:
    """Read, merge and validate the recipes of a run.

    A benchmark goes over its ``base``. The strategy's ``[model]`` and ``[training]`` go
    over the benchmark's; a model of another type replaces the benchmark's model
    altogether. Overrides come last, in their order; a key of the stream replaces others
    as it does over a ``base``, and one that changes which images arrive when takes the
    published numbers away, for they are of the stream as it was. A ``feature_gmm`` has
    no flow to train, so its epochs are 0 whatever the recipes and overrides say.

    :param benchmark: a name that ``list_recipes`` knows, or the path of a TOML file.
    :param strategy: likewise.
    :param overrides: ``section.key=value`` with a section of ``features``, ``model``,
        ``training``, ``synthetic``, ``options`` or ``plugins.N``, which may go deeper,
        or ``key=value`` for a key of the benchmark; the value as TOML, or else, if it
        starts as no list or table, taken as text.
    :raises RecipeError: at the first thing that is not as expected.
    """
    benchmark_name, benchmark_file = _find("benchmarks", benchmark)
    strategy_name, strategy_file = _find("strategies", strategy)
    # Each file on its own first, so that a mistake is told where it was made.
    stream = _read_stream(benchmark_file)
    learner = read_toml(strategy_file)
    checked = _validated(StrategyRecipe, learner, str(strategy_file))

    stream = _over(stream, {"model": checked.model, "training": checked.training})
    _validated(BenchmarkRecipe, stream, f"{strategy_file} over {benchmark_file}")
    changes = [_parsed(override) for override in overrides]
    own = {path[0]: value for path, value in changes if len(path) == 1}
    gone = _replaced(stream, own)
    if _STREAM_KEYS & own.keys():
        gone |= {"published"} - own.keys()
    stream = {key: value for key, value in stream.items() if key not in gone}
    for override, (path, value) in zip(overrides, changes, strict=True):
        _override(stream, learner, override, path, value, strategy_name)
    _default_model(stream)
    where = str(benchmark_file)
    if overrides:
        where = f"--set {' '.join(overrides)} over {strategy_name}"
    whole = _validated(BenchmarkRecipe, stream, where)
    if isinstance(whole.model, FeatureGMMRecipe):
        untrained = whole.training.model_copy(update={"epochs": 0})
        whole = whole.model_copy(update={"training": untrained})
    shipped = strategy_file in list_recipes("strategies").values()
    return ExperimentRecipe(
        benchmark_name=benchmark_name,
        strategy_name=strategy_name,
        benchmark=whole,
        strategy=_validated(StrategyRecipe, learner, where),
        folder=None if shipped else strategy_file.resolve().parent,
    )


def _find(kind: Literal["strategies", "benchmarks"], name: str) -> tuple[str, Path]:
    """Return a recipe's name and file."""
    known = list_recipes(kind)
    path = known.get(name)
    if path is None and _is_path(name):
        path = Path(name)
    if path is None:
        singular = "strategy" if kind == "strategies" else "benchmark"
        raise RecipeError(
            f"{unknown(singular, name, known)}, or give the path of a TOML file"
        )
    return path.stem, path


def _is_path(name: str) -> bool:
    return name.endswith(".toml") or "/" in name


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return what to say of a name that is none, with the nearest that is one."""
    known = list(known)
    close = get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {name!r}{hint}; there are {', '.join(known)}"


def _read_stream(path: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a benchmark, put it over its base, and check the whole.

    :param path: the benchmark's file.
    :param heirs: the files that are based on this one.
    :return: the content, without ``base``.
    """
    content = read_toml(path)
    base = content.pop("base", None)
    if base is not None:
        file = _base_file(base, path)
        heirs = (*heirs, path)
        if any(heir.resolve() == file.resolve() for heir in heirs):
            raise RecipeError(
                f"{path}: key 'base': {base!r} is based on this recipe in turn: one of "
                "them has to go without"
            )
        inherited = _read_stream(file, heirs)
        gone = _replaced(inherited, content) | set(_NOT_INHERITED)
        kept = {key: value for key, value in inherited.items() if key not in gone}
        content = _over(kept, content)
    _default_model(content)
    _validated(BenchmarkRecipe, content, str(path), ("base",))
    return content


def _replaced(stream: Mapping[str, Any], change: Mapping[str, Any]) -> set[str]:
    """Return the keys of a stream that go when others are put over it."""
    changed = {
        key
        for key, value in change.items()
        if key != "dataset" or value != stream.get(key)
    }
    return {old for key in changed for old in _REPLACES.get(key, ())}


def _base_file(base: object, path: Path) -> Path:
    """Return the file of the recipe that the one at ``path`` calls its base."""
    known = list_recipes("benchmarks")
    if not isinstance(base, str):
        raise RecipeError(
            f"{path}: key 'base': expected the name of a benchmark or the path of a "
            f"TOML file, got {base!r}"
        )
    if base not in known and not _is_path(base):
        raise RecipeError(f"{path}: key 'base': {unknown('benchmark', base, known)}")
    return known.get(base) or path.parent / base


def _over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another put over it, key by key.

    A model of another type, and the options of another backbone, take the place of
    those there were.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if not (isinstance(value, dict) and isinstance(old, dict)):
            merged[key] = value
            continue
        kept = dict(old)
        if key == "model" and value.get("type", old.get("type")) != old.get("type"):
            kept = {}
        before = old.get("backbone")
        if key == "features" and value.get("backbone", before) != before:
            kept.pop("options", None)
        merged[key] = _over(kept, value)
    return merged


def _default_model(stream: dict[str, Any]) -> None:
    """Name the model's type, by which pydantic picks its schema."""
    model = stream.setdefault("model", {})
    if isinstance(model, dict):
        model.setdefault("type", "flow_gmm")


def _validated(
    kind: type[Any], content: dict[str, Any], where: str, more: tuple[str, ...] = ()
) -> Any:
    """Return the recipe of a kind that the content is.

    :param more: keys there are besides the recipe's own.
    :raises RecipeError: naming the first key that is wrong. An unknown one goes before
        a missing one, which may be the same one misspelt.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problem = min(error.errors(), key=lambda found: found["type"] != _UNKNOWN)
        tags = ("flow_gmm", "feature_gmm")
        parts = [str(part) for part in problem["loc"] if part not in tags]
        key = ".".join(parts)
        if problem["type"] == _UNKNOWN:
            known = _fields_at(kind, parts[:-1], content)
            known += more if len(parts) == 1 else ()
            close = get_close_matches(parts[-1], known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise RecipeError(
                f"{where}: unknown key {key!r}{hint}; known: {', '.join(known)}"
            ) from None
        if problem["type"] == "value_error":  # of a validator of ours
            place = f"key {key!r}: " if parts else ""
            reason = str(problem["msg"]).removeprefix("Value error, ")
            raise RecipeError(f"{where}: {place}{reason}") from None
        found = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
        # pydantic's word for what TOML calls a list
        reason = problem["msg"].replace("tuple", "list").replace("Tuple", "List")
        raise RecipeError(f"{where}: key {key!r}: {reason}{found}") from None


def _fields_at(
    kind: type[BaseModel], parts: Sequence[str], content: dict[str, Any]
) -> list[str]:
    if not parts:
        return list(kind.model_fields)
    section = parts[0]
    if section == "model":
        chosen = content.get("model", {}).get("type", "flow_gmm")
        made = FeatureGMMRecipe if chosen == "feature_gmm" else FlowGMMRecipe
        return list(made.model_fields)
    sections: dict[str, type[BaseModel]] = {
        "features": FeaturesRecipe,
        "training": TrainingRecipe,
        "synthetic": SyntheticRecipe,
        "published": PublishedRecipe,
    }
    return list(sections[section].model_fields) if section in sections else []


def _parsed(override: str) -> tuple[list[str], Any]:
    """Return the parts of an override's key, and its value."""
    key, separator, text = override.partition("=")
    path = key.strip().split(".")
    if not separator or not all(path):
        raise RecipeError(
            f"--set {override!r}: expected section.key=value, such as training.epochs=4"
        )
    if path[0] == "base":
        raise RecipeError(
            f"--set {override!r}: a base belongs in a file: write a TOML file with "
            "title and base and give its path as the benchmark"
        )
    try:
        return path, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.strip().startswith(("[", "{")):
            raise RecipeError(
                f"--set {override!r}: not a TOML value: text in a list or a table "
                """needs quotes, such as '["bolt", "gear"]'"""
            ) from None
        return path, text


def _override(
    stream: dict[str, Any],
    learner: dict[str, Any],
    override: str,
    path: Sequence[str],
    value: object,
    strategy: str,
) -> None:
    """Set what an override says."""
    if path[0] == "plugins":
        plugins = learner.get("plugins", [])
        if not plugins:
            raise RecipeError(
                f"--set {override!r}: the strategy {strategy} has no plugins"
            )
        number = int(path[1]) if len(path) > 2 and path[1].isdecimal() else None
        if number is None or number >= len(plugins):
            raise RecipeError(
                f"--set {override!r}: expected plugins.N.key=value with N from 0 to "
                f"{len(plugins) - 1} for the strategy {strategy}"
            )
        _set(plugins[number], path[2:], value, override)
    elif len(path) == 1:
        stream[path[0]] = value
    elif path[0] == "options":
        _set(learner, path, value, override)
    elif path[0] in ("features", "model", "training", "synthetic"):
        _set(stream, path, value, override)
    else:
        raise RecipeError(
            f"--set {override!r}: unknown section {path[0]!r}; there are features, "
            "model, training, synthetic, options and plugins.N"
        )


def _set(
    table: dict[str, Any], path: Sequence[str], value: object, override: str
) -> None:
    """Set a value in a table of tables, making those on the way."""
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override!r}: {part!r} holds no keys")
    table[path[-1]] = value
