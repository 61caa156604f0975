"""Every strategy and plugin of Avalanche is used by a recipe, or it is said why not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path

import pytest
from avalanche.core import BasePlugin
from avalanche.training import plugins, supervised
from avalanche.training.templates.base import BaseTemplate

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.recipe import list_recipes, read_toml, resolve
from avalanche_ad.experiments.unsupported import UNSUPPORTED

# Not continual learning: parts of the loop, and stopping and schedules.
HELPERS = {"Clock", "EarlyStoppingPlugin", "LRSchedulerPlugin"}
# Strategy classes that are Naive with one plugin: what a recipe writes out.
WRAPPERS = {
    "AGEM": "AGEMPlugin",
    "EWC": "EWCPlugin",
    "FromScratchTraining": "FromScratchTrainingPlugin",
    "GDumb": "GDumbPlugin",
    "GEM": "GEMPlugin",
    "LwF": "LwFPlugin",
    "MAS": "MASPlugin",
    "MIR": "MIRPlugin",
    "Replay": "ReplayPlugin",
}
README = Path(__file__).parents[2] / "strategies" / "README.md"


def own_classes(package):
    """Return the public strategy and plugin classes that a package defines."""
    found = {}
    for info in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{info.name}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that are not installed
            module = importlib.import_module(name)
        for made in vars(module).values():
            if (
                inspect.isclass(made)
                and issubclass(made, (BasePlugin, BaseTemplate))
                and made.__module__ == name
                and not made.__name__.startswith("_")
            ):
                found[made.__name__] = name
    return found


AVALANCHE = own_classes(supervised) | own_classes(plugins)


def used():
    """Return the names of Avalanche's classes that recipes name."""
    paths = []
    for path in list_recipes("strategies").values():
        content = read_toml(path)
        paths.append(content.get("strategy", "avalanche.training.supervised.Naive"))
        paths += [plugin["type"] for plugin in content.get("plugins", [])]
    return {p.rpartition(".")[2] for p in paths if p.startswith("avalanche.")}


def rows(heading):
    """Return the cells of a table of the README."""
    text = (
        README.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    )
    lines = re.findall(r"^\| (`.*?) \|$", text, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_the_enumeration_finds_what_there_is():
    assert {"Naive", "DER", "MER", "StreamingLDA", "MIRPlugin"} <= set(AVALANCHE)
    assert len(AVALANCHE) > 50


@pytest.mark.parametrize("name", sorted(AVALANCHE))
def test_each_class_is_used_or_it_is_said_why_not(name):
    answers = {
        "used": WRAPPERS.get(name, name) in used(),
        "unsupported": name in UNSUPPORTED,
        "helper": name in HELPERS,
    }
    assert sum(answers.values()) == 1, answers


def test_no_reason_is_left_over():
    assert set(UNSUPPORTED) <= set(AVALANCHE)
    assert set(WRAPPERS) | HELPERS <= set(AVALANCHE)


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_cannot_work_is_refused_with_its_reason(name):
    package = (
        "plugins" if AVALANCHE[name].startswith(plugins.__name__) else "supervised"
    )
    with pytest.raises(RecipeError) as caught:
        resolve(
            f"avalanche.training.{package}.{name}",
            (BasePlugin, BaseTemplate),
            "strategy",
        )
    message = str(caught.value)
    assert message.endswith(f"cannot work here: {UNSUPPORTED[name]}")
    assert "\n" not in message
    assert len(UNSUPPORTED[name]) < 160


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_a_reason_recommends_is_there(name):
    for path in re.findall(r"avalanche_ad\.[\w.]+\w", UNSUPPORTED[name]):
        resolve(path, (BasePlugin, BaseTemplate), "plugin")


def test_the_readme_tells_what_cannot_work():
    table = {name.strip("`"): reason for name, reason in rows("What does not work")}
    assert table == {name: f"{reason}." for name, reason in UNSUPPORTED.items()}


def test_the_readme_tells_what_works():
    works = {}
    for name, recipes, *_ in rows("What works"):
        works[name.strip("`")] = re.findall(r"`(\w+)`", recipes)
    assert set(works) == used() & set(AVALANCHE) - {"Naive"}
    shipped = list_recipes("strategies")
    for name, recipes in works.items():
        assert recipes, name
        for recipe in recipes:
            assert f".{name}" in shipped[recipe].read_text("utf-8"), (name, recipe)
