"""Every strategy and plugin of Avalanche is used by a recipe, or it is said why not."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import warnings
from types import SimpleNamespace

import pytest
import torch
from avalanche.core import BasePlugin
from avalanche.models.dynamic_optimizers import reset_optimizer
from avalanche.training import plugins, supervised
from avalanche.training.templates.base import BaseTemplate

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.experiments.unsupported import (
    UNSUPPORTED,
    UNSUPPORTED_ARGUMENTS,
    resolve,
)
from avalanche_ad.features import FeatureLayout
from avalanche_ad.models import FlowGMM
from avalanche_ad.recipes import (
    list_recipes,
    load_experiment,
    read_toml,
)
from avalanche_ad.training import make_optimizer

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
README = list_recipes("strategies")["naive"].with_name("README.md")


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


@pytest.fixture
def with_setting(tmp_path):
    """Load a recipe that uses a class of Avalanche with an argument, or its default."""

    def load(name, **arguments):
        package = AVALANCHE[name].rpartition(".")[0]
        lines = [f"{key} = {json.dumps(value)}" for key, value in arguments.items()]
        head = ['title = "Own"', 'summary = "Own."']
        used = [f"strategy = '{package}.{name}'", "[options]"]
        if package == plugins.__name__:
            used = ["[[plugins]]", f"type = '{package}.{name}'"]
        path = tmp_path / "own.toml"
        path.write_text("\n".join([*head, *used, *lines]))
        return load_experiment("synthetic_2x2", str(path))

    return load


SAFE = {"mode": "cosine", "reset_optimizer": False}


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_ARGUMENTS))
def test_an_argument_known_to_break_is_refused_with_its_reason(name, with_setting):
    argument, refused, reason = UNSUPPORTED_ARGUMENTS[name]
    with pytest.raises(RecipeError) as caught:
        check_strategy(with_setting(name, **{argument: refused}))
    message = str(caught.value)
    assert f"{name} cannot work here with {argument} = {refused!r}: " in message
    assert message.endswith(reason)
    assert "\n" not in message
    assert len(reason) < 160
    check_strategy(with_setting(name, **{argument: SAFE[argument]}))


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_ARGUMENTS))
def test_an_argument_is_refused_by_its_default_too(name, with_setting):
    argument, refused, _ = UNSUPPORTED_ARGUMENTS[name]
    made = resolve(f"{AVALANCHE[name]}.{name}", (BasePlugin, BaseTemplate), "class")
    default = inspect.signature(made).parameters[argument].default
    if default != refused:
        check_strategy(with_setting(name))
        return
    with pytest.raises(RecipeError, match=rf"{argument} = {refused}, its default: "):
        check_strategy(with_setting(name))


def test_a_distillation_by_squares_is_broken():
    """When this fails, Avalanche has mended it: take it out of the table."""
    plugin = plugins.FeatureDistillationPlugin(mode="mse")
    model = torch.nn.Identity()
    model.features = torch.zeros(2, 3)
    plugin.prev_model = model
    strategy = SimpleNamespace(
        model=model, mb_x=torch.zeros(2, 3), mb_task_id=None, loss=torch.zeros(())
    )
    with pytest.raises(TypeError, match="dim"):
        plugin.before_backward(strategy)


def test_an_optimizer_of_the_mixtures_cannot_be_reset():
    """When this fails, Avalanche has mended it: take it out of the table."""
    model = FlowGMM(FeatureLayout(((2, 2, 8),)), 2, couplings=1, condition_channels=0)
    broken = pytest.raises(ValueError, match="single parameter group")
    with pytest.warns(DeprecationWarning, match="reset_optimizer"), broken:
        reset_optimizer(make_optimizer(model), model)


@pytest.mark.parametrize("name", sorted(UNSUPPORTED))
def test_what_a_reason_recommends_is_there(name):
    for path in re.findall(r"avalanche_ad\.[\w.]+\w", UNSUPPORTED[name]):
        resolve(path, (BasePlugin, BaseTemplate), "plugin")


def test_the_readme_tells_what_cannot_work():
    table = {name.strip("`"): reason for name, reason in rows("What does not work")}
    assert table == {name: f"{reason}." for name, reason in UNSUPPORTED.items()}


def test_the_readme_tells_what_works():
    works = {}
    for name, shown, *_ in rows("What works"):
        works[name.strip("`")] = re.findall(r"`(\w+)`", shown)
    assert set(works) == used() & set(AVALANCHE) - {"Naive"}
    shipped = list_recipes("strategies")
    for name, shown in works.items():
        assert shown, name
        for recipe in shown:
            assert f".{name}" in shipped[recipe].read_text("utf-8"), (name, recipe)
