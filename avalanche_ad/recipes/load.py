"""From names and files to the recipe of a run, checked as a whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from avalanche_ad.errors import RecipeError
from avalanche_ad.recipes.merge import STREAM_KEYS, over, replaced
from avalanche_ad.recipes.model_options import model_class
from avalanche_ad.recipes.names import LOOKUPS
from avalanche_ad.recipes.overrides import TYPES, apply_override, parsed
from avalanche_ad.recipes.schema import (
    BenchmarkRecipe,
    ExperimentRecipe,
    StrategyRecipe,
)
from avalanche_ad.recipes.validation import validated
from avalanche_ad.registry import unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["list_recipes", "load_experiment", "read_toml"]

_PACKAGE = Path(__file__).resolve().parent
_NOT_INHERITED = ("title", "published")


def list_recipes(kind: Literal["strategies", "benchmarks"]) -> dict[str, Path]:
    """Return the recipes that come with the package, name → file.

    >>> "synthetic_5x3" in list_recipes("benchmarks")
    True
    """
    found = sorted((_PACKAGE / kind).glob("*.toml"))
    if not found:
        raise RecipeError(
            f"no {kind} recipes found in the package at {_PACKAGE}: reinstall it"
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
    altogether. Overrides come last, in their order, but ``model.type`` and
    ``features.backbone``, which come before their options; a key of the stream replaces
    others as it does over a ``base``, and one that changes which images arrive when
    takes the published numbers away, for they are of the stream as it was. A model that
    is not trained, as ``feature_gmm``, has 0 epochs whatever is said.

    :param benchmark: a name that ``list_recipes`` knows, or the path of a TOML file.
    :param strategy: likewise.
    :param overrides: ``section.key=value`` with a section of ``features``, ``model``,
        ``training``, ``synthetic``, ``options`` or ``plugins.N``, which may go deeper,
        or ``key=value`` for a key of the benchmark; the value as TOML, or else, if it
        starts as no list or table, taken as text.
    :raises RecipeError: at the first thing that is not as expected.

    >>> load_experiment("synthetic_5x3", "naive", ["training.lr=1e-4"]).strategy.title
    'Naive'
    """
    benchmark_name, benchmark_file = _find("benchmarks", benchmark)
    strategy_name, strategy_file = _find("strategies", strategy)
    # Each file on its own first, so that a mistake is told where it was made.
    stream, stated = _read_stream(benchmark_file)
    learner = read_toml(strategy_file)
    checked = validated(StrategyRecipe, learner, str(strategy_file))

    change = {"model": checked.model, "training": checked.training}
    stream, stated = over(stream, change), stated | _stated(change, strategy_file)
    folder = _folder(stated["model.type"])
    validated(BenchmarkRecipe, stream, f"{strategy_file} over {benchmark_file}", folder)
    changes = [parsed(override) for override in overrides]
    own = {path[0]: value for path, value in changes if len(path) == 1}
    gone = replaced(stream, own)
    if STREAM_KEYS & own.keys():
        gone |= {"published"} - own.keys()
    stream = {key: value for key, value in stream.items() if key not in gone}
    told = zip(overrides, changes, strict=True)
    # a type first, whose options may stand before it
    for override, (path, value) in sorted(told, key=lambda one: one[1][0] not in TYPES):
        apply_override(stream, learner, override, path, value, strategy_name)
    where = str(benchmark_file)
    if overrides:
        where = f"--set {' '.join(overrides)} over {strategy_name}"
    whole = validated(BenchmarkRecipe, stream, where, folder)
    if not model_class(whole.model.type, folder).trained:
        untrained = whole.training.model_copy(update={"epochs": 0})
        whole = whole.model_copy(update={"training": untrained})
    strategy_recipe = validated(StrategyRecipe, learner, where)
    set_ = {name for path, _ in changes for name in LOOKUPS if _within(name, path)}
    _check_names(whole, stated, dict.fromkeys(set_, where))
    files = {"strategy": strategy_file, **stated}
    folders = {key: _folder(file) for key, file in files.items()}
    return ExperimentRecipe(
        benchmark_name=benchmark_name,
        strategy_name=strategy_name,
        benchmark=whole,
        strategy=strategy_recipe,
        folders={key: folder for key, folder in folders.items() if folder},
    )


def _check_names(
    recipe: BenchmarkRecipe, stated: Mapping[str, Path], places: Mapping[str, str]
) -> None:
    """Refuse names of classes that there are not.

    :param stated: the file that states each name.
    :param places: where it is stated instead, for errors.
    """
    for key, look_up in LOOKUPS.items():
        try:
            look_up(recipe, _folder(stated[key]))
        except RecipeError as error:
            where = places.get(key, stated[key])
            raise RecipeError(f"{where}: key {key!r}: {error}") from None


def _stated(content: Mapping[str, Any], file: Path) -> dict[str, Path]:
    """Return those of the names of classes that a file states, each with the file."""
    found = {}
    for name in LOOKUPS:
        section, _, key = name.partition(".")
        table = content.get(section, {})
        if key in table if key and isinstance(table, dict) else section in content:
            found[name] = file
    return found


def _within(name: str, path: Sequence[str]) -> bool:
    own, set_ = f"{name}.", f"{'.'.join(path)}."
    return own.startswith(set_) or set_.startswith(own)


def _folder(file: Path) -> Path | None:
    """Return where modules beside a file are, none for a file of the package."""
    folder = file.resolve().parent
    return None if folder.parent == _PACKAGE else folder


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


def _read_stream(
    path: Path, heirs: tuple[Path, ...] = ()
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read a benchmark, put it over its base, and check the whole.

    :param path: the benchmark's file.
    :param heirs: the files that are based on this one.
    :return: the content, without ``base``, and the file that states each name.
    """
    content = read_toml(path)
    stated = dict.fromkeys(LOOKUPS, path)
    base = content.pop("base", None)
    if "data" in content:
        content["data"] = _beside(content["data"], path)
    if base is not None:
        file = _base_file(base, path)
        heirs = (*heirs, path)
        if any(heir.resolve() == file.resolve() for heir in heirs):
            raise RecipeError(
                f"{path}: key 'base': {base!r} is based on this recipe in turn: one of "
                "them has to go without"
            )
        inherited, elsewhere = _read_stream(file, heirs)
        stated = elsewhere | _stated(content, path)
        gone = replaced(inherited, content) | set(_NOT_INHERITED)
        kept = {key: value for key, value in inherited.items() if key not in gone}
        content = over(kept, content)
    folder = _folder(stated["model.type"])
    validated(BenchmarkRecipe, content, str(path), folder, ("base",))
    return content, stated


def _beside(data: object, path: Path) -> object:
    """Return folders that a file names, as seen from there; what is none stays."""
    if isinstance(data, list):
        return [_beside(one, path) for one in data]
    if isinstance(data, str):
        return str(path.parent / Path(data).expanduser())
    return data


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
