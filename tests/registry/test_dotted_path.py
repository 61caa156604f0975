"""Classes that recipes name: found beside the recipe's file, or told why not."""

from __future__ import annotations

import importlib
import json
import pickle
import shutil
import subprocess
import sys

import pytest
from avalanche.core import BasePlugin

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.experiments.checkpoint import (
    StaleCheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from avalanche_ad.experiments.configuration import run_configuration
from avalanche_ad.recipes import load_experiment
from avalanche_ad.registry import dotted_path
from avalanche_ad.registry.dotted_path import resolve

PLUGIN = """\
from avalanche.core import SupervisedPlugin


class Keeps(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.tasks = 0

    def after_training_exp(self, strategy, **kwargs):
        self.tasks += 1
"""
RECIPE = 'title = "M"\nsummary = "x"\n[[plugins]]\ntype = "{}"\n'


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """Forget the modules and folders that a test brings into this process."""
    monkeypatch.setattr(dotted_path, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("avalanche", "torch")):
            del sys.modules[name]
    importlib.invalidate_caches()


def write(folder, name, code, plugin=None):
    """Write a module, and the recipe of a strategy that uses a plugin of it."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    recipe = folder / f"{name}.toml"
    recipe.write_text(RECIPE.format(plugin or f"{name}.Keeps"))
    return load_experiment("synthetic_5x3", str(recipe))


def test_a_module_beside_the_recipe_is_found_from_anywhere(tmp_path, monkeypatch):
    recipe = write(tmp_path / "a", "own_keeps", PLUGIN)
    monkeypatch.chdir("/")
    check_strategy(recipe)
    found = sys.modules["own_keeps"]
    assert found.__file__ == str(tmp_path / "a" / "own_keeps.py")
    assert sys.path[-1] == str(tmp_path / "a")


def test_where_the_recipe_lies_is_not_recorded(tmp_path):
    recipe = write(tmp_path / "a", "own_keeps", PLUGIN)
    moved = shutil.copytree(tmp_path / "a", tmp_path / "b")
    other = load_experiment("synthetic_5x3", str(moved / "own_keeps.toml"))
    assert run_configuration(recipe, None) == run_configuration(other, None)
    assert str(tmp_path) not in json.dumps(run_configuration(recipe, None))


def test_what_is_installed_is_not_hidden(tmp_path):
    recipe = write(tmp_path / "a", "statistics", PLUGIN)
    with pytest.raises(RecipeError) as caught:
        check_strategy(recipe)
    assert "hides the one in" in str(caught.value)
    assert "another name" in str(caught.value)
    import statistics

    assert statistics.mean([1, 3]) == 2


def test_two_modules_of_one_name_are_not_mixed_up(tmp_path):
    first = write(tmp_path / "a", "own_keeps", PLUGIN)
    second = write(tmp_path / "b", "own_keeps", PLUGIN.replace("= 0", "= 100"))
    check_strategy(first)
    with pytest.raises(RecipeError, match=r"both hold a module 'own_keeps'.*rename"):
        check_strategy(second)
    check_strategy(first)


def test_helpers_of_one_name_are_not_mixed_up(tmp_path):
    for folder, name in (("a", "keeps_a"), ("b", "keeps_b")):
        write(tmp_path / folder, "helpers", f"SIZE = '{folder}'\n")
        write(tmp_path / folder, name, "from helpers import SIZE\n" + PLUGIN)
    check_strategy(load_experiment("synthetic_5x3", str(tmp_path / "a/keeps_a.toml")))
    second = load_experiment("synthetic_5x3", str(tmp_path / "b/keeps_b.toml"))
    with pytest.raises(RecipeError, match="both hold a module 'helpers'"):
        check_strategy(second)


def test_folders_of_other_modules_go_together(tmp_path):
    for folder in ("a", "b"):
        check_strategy(write(tmp_path / folder, f"keeps_{folder}", PLUGIN))
    assert sys.path[-2:] == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import not_installed\n", "No module named 'not_installed' (imported by {})"),
        ("import {}.inner\n", "'{}.inner'; '{}' is not a package (imported by {})"),
        ("x = (\n", "SyntaxError: '(' was never closed ({file}, line 1)"),
        ("\nraise ValueError('odd\\none')\n", "ValueError: odd one ({file}, line 2)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 ({file}, line 2)"),
        ("import json\n\njson.loads('')\n", "JSONDecodeError: {json} ({file}, line 3)"),
        ("from os import nothing\n", "ImportError: cannot import name 'nothing'"),
    ],
)
def test_a_module_that_fails_says_its_own_error(tmp_path, code, said):
    recipe = write(tmp_path / "a", "own_fails", code.replace("{}", "own_fails"))
    with pytest.raises(RecipeError) as caught:
        check_strategy(recipe)
    expected = said.replace("{}", "own_fails").format(
        file=tmp_path / "a" / "own_fails.py",
        json="Expecting value: line 1 column 1 (char 0)",
    )
    assert str(caught.value).startswith("plugin 'own_fails.Keeps': ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_module_that_misses_another_is_named(tmp_path):
    write(tmp_path / "a", "own_helper", "import not_installed\n")
    recipe = write(tmp_path / "a", "own_keeps", "import own_helper\n")
    with pytest.raises(RecipeError, match=r"'not_installed' \(imported by own_helper"):
        check_strategy(recipe)


def test_a_module_that_does_not_exist_is_said_to(tmp_path):
    recipe = write(tmp_path / "a", "own_keeps", PLUGIN, "nowhere_to_be.Found")
    with pytest.raises(RecipeError) as caught:
        check_strategy(recipe)
    assert f"no module 'nowhere_to_be' beside the recipe in {tmp_path}/a or on" in str(
        caught.value
    )
    with pytest.raises(RecipeError, match=r"no module 'own_keeps\.inner'"):
        resolve("own_keeps.inner.P", (BasePlugin,), "plugin", tmp_path / "a")


def test_a_class_that_does_not_exist_is_told_with_those_that_do(tmp_path):
    recipe = write(tmp_path / "a", "own_keeps", PLUGIN, "own_keeps.Keep")
    with pytest.raises(RecipeError) as caught:
        check_strategy(recipe)
    assert "no such class in module 'own_keeps' (did you mean 'Keeps'?)" in str(
        caught.value
    )
    assert "it has Keeps;" in str(caught.value)


def test_another_process_finds_it_by_the_recipe(tmp_path):
    recipe = write(tmp_path / "a", "own_keeps", PLUGIN)
    (tmp_path / "recipe").write_bytes(pickle.dumps(recipe))
    code = (
        "import pathlib, pickle, sys\n"
        "from avalanche_ad.experiments.build import check_strategy\n"
        "check_strategy(pickle.loads(pathlib.Path('recipe').read_bytes()))\n"
        "print(sys.modules['own_keeps'].__file__)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "a" / "own_keeps.py")


def test_a_checkpoint_finds_it_once_its_recipe_is_checked(tmp_path):
    recipe = write(tmp_path / "a", "own_keeps", PLUGIN)
    check_strategy(recipe)
    made = sys.modules["own_keeps"].Keeps()
    made.tasks = 3
    save_checkpoint(tmp_path / "checkpoint", {"plugin": made})
    del sys.modules["own_keeps"]
    sys.path.remove(str(tmp_path / "a"))
    importlib.invalidate_caches()
    with pytest.raises(StaleCheckpointError, match="No module named 'own_keeps'"):
        load_checkpoint(tmp_path / "checkpoint")
    check_strategy(recipe)
    state = load_checkpoint(tmp_path / "checkpoint")
    assert state is not None
    assert state["plugin"].tasks == 3
    assert type(state["plugin"]) is sys.modules["own_keeps"].Keeps
