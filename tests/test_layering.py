"""Imports point left only, and Avalanche is imported where it is needed alone.

The order is that of the data: datasets, features, benchmarks, models, training,
evaluation, experiments. ``models`` takes the layout of the features and nothing else
from its left. ``reporting`` is made of functions of plain values: it imports nothing of
the package but ``errors``, so whatever holds a result may call it. ``errors`` and
``registry`` are for all; ``cli`` imports what it likes and is imported by none. No
family of models knows another, and nothing outside a family names it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import avalanche_ad
from avalanche_ad.models.registry import MODELS

NAME = "avalanche_ad"
ROOT = Path(avalanche_ad.__file__).parent
ORDER = (
    "datasets",
    "features",
    "benchmarks",
    "models",
    "training",
    "evaluation",
    "recipes",
    "experiments",
)
LIGHT = (
    "datasets",
    "features",
    "models",
    "evaluation.anomaly_metric",
    "evaluation.continual",
    "evaluation.detection",
    "evaluation.detection_curve",
    "evaluation.measures",
    "evaluation.measuring",
    "evaluation.registry",
    "evaluation.saturated_overlap",
    "reporting",
)
"""Modules that come without Avalanche."""


def imported_names(tree, module, is_package):
    """Yield (line, dotted name) of every import of a module, at whatever depth."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"
        elif isinstance(node, ast.Call):
            called = node.func
            name = getattr(called, "id", getattr(called, "attr", ""))
            first = node.args[0] if node.args else None
            if name in ("import_module", "__import__") and isinstance(
                first, ast.Constant
            ):
                yield node.lineno, str(first.value)


def is_within(name, module):
    return name == module or name.startswith(f"{module}.")


def allowed(layer, name):
    """Whether a module of a layer may import a dotted name of the package."""
    target = name.removeprefix(f"{NAME}.").split(".")[0]
    if layer == "cli" or target in ("errors", "registry", "__version__", layer):
        return True
    if layer in ("errors", "registry", "reporting"):
        return False
    if layer == "models":
        return is_within(name, f"{NAME}.features.layout")
    if target == "reporting":
        return layer == "experiments"
    return target in ORDER[: ORDER.index(layer)]


def violations(root):
    """Return one line for every import that breaks a rule."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).with_suffix("")
        parts = [part for part in relative.parts if part != "__init__"]
        if not parts:  # the package itself offers names of every layer, lazily
            continue
        inside = ".".join(parts)
        layer = parts[0]
        if layer not in (*ORDER, "reporting", "registry", "errors", "cli"):
            found.append(f"{inside}: a layer that the order does not know")
            continue
        tree = ast.parse(path.read_text("utf-8"))
        light = any(is_within(inside, module) for module in LIGHT)
        for line, name in imported_names(
            tree, f"{NAME}.{inside}", path.name == "__init__.py"
        ):
            if is_within(name, NAME) and not allowed(layer, name):
                found.append(f"{inside}:{line} imports {name}")
            if light and is_within(name, "avalanche"):
                found.append(f"{inside}:{line} imports {name}")
    return found


def test_imports_point_left():
    assert violations(ROOT) == []


def test_every_layer_is_there():
    for layer in (*ORDER, "reporting"):
        assert (ROOT / layer / "__init__.py").is_file(), layer


PLANTED = {
    "datasets": "from avalanche_ad.features import FeatureCache",
    "features": "def late():\n    import avalanche_ad.benchmarks.order",
    "benchmarks": "from avalanche_ad import models",
    "models": "from avalanche_ad.features.cache import FeatureCache",
    "models.storage": "from avalanche_ad.datasets.sample import Sample",
    "training": "from ..evaluation import registry",
    "training.plugins.early": "from ...experiments.runner import run_experiment",
    "evaluation": "from avalanche_ad.experiments import results",
    "evaluation.detection": "from avalanche.evaluation import PluginMetric",
    "evaluation.metrics": "from avalanche_ad.reporting.tables import table",
    "experiments": "from avalanche_ad.cli import main",
    "reporting": "from avalanche_ad.experiments.results import read_results",
    "reporting.html": "import avalanche",
    "errors": "from avalanche_ad.models import FlowGMM",
    "features.registry": "from avalanche_ad import anomaly_benchmark",
    "models.base": "if TYPE_CHECKING:\n    from avalanche.core import BasePlugin",
    "datasets.disk": "import importlib\nimportlib.import_module('avalanche_ad.models')",
    "wizardry": "x = 1",
}


@pytest.mark.parametrize("module", PLANTED)
def test_the_check_finds_what_is_planted(tmp_path, module):
    path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    if module in (*ORDER, "reporting"):
        path = tmp_path / module / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PLANTED[module])
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(module)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("benchmarks", "from avalanche_ad.features import FeatureCache"),
        ("models", "from avalanche_ad.features.layout import FeatureLayout"),
        ("models.gmm", "from .scoring import negative_entropy"),
        ("training", "from avalanche.core import BasePlugin"),
        ("experiments", "from avalanche_ad import __version__"),
        ("experiments.sweep", "from avalanche_ad.reporting import tables"),
        ("reporting", "from avalanche_ad.errors import ResultsError"),
        ("cli", "from avalanche_ad.experiments import runner"),
        ("datasets", "import avalanche_adjacent"),
    ],
)
def test_the_check_passes_what_is_right(tmp_path, module, line):
    path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert violations(tmp_path) == []


def family_of(module):
    """Return the first part of a dotted name below ``models``, if it is a family."""
    parts = module.removeprefix(f"{NAME}.").split(".")
    below = parts[1] if parts[0] == "models" and len(parts) > 1 else ""
    return below if below in FAMILIES else ""


FAMILIES = {
    made.__module__.removeprefix(f"{NAME}.models.").split(".")[0]
    for made in MODELS.own.values()
}
"""Files or folders of ``models`` that a model lies in."""
NAMES = {name for made in MODELS.own.values() for name in (made.kind, made.__name__)}
OFFER = {
    "": "the package's public names",
    "models": "the public names of models",
    "training": "the public names of training",
    "training.dynamic": "three models as Avalanche's strategies grow them",
    "recipes.model_options": "the type of a [model] that names none",
    "experiments.studies.ablation": "a strategy of the same name",
}
"""The modules that may name a model: they offer it, and do nothing else with it."""


def names_of_families(root):
    """Return one line for every place that knows a family of models but its own."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).with_suffix("")
        inside = ".".join(part for part in relative.parts if part != "__init__")
        own = family_of(f"{NAME}.{inside}")
        if inside in OFFER:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        module = f"{NAME}.{inside}"
        for line, name in imported_names(tree, module, path.name == "__init__.py"):
            other = family_of(name)
            named = name.startswith(f"{NAME}.models.") and name.split(".")[-1] in NAMES
            if (other and other != own) or (named and not own):
                found.append(f"{inside}:{line} imports {name}")
        # the default of `run` is a recipe that has its model's name
        for node in ast.walk(tree) if not own and inside != "cli.run" else ():
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and text in NAMES:
                found.append(f"{inside}:{node.lineno} names {text}")
    return found


def test_no_family_of_models_is_named_outside_it():
    assert {"hgad", "feature_gmm"} <= FAMILIES
    assert names_of_families(ROOT) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("models.hgad.flow", "from avalanche_ad.models.feature_gmm import FeatureGMM"),
        ("models.storage", "from avalanche_ad.models.hgad import FlowGMM"),
        ("models.storage", "from avalanche_ad.models import FlowGMM"),
        ("training.plugins.new", "from avalanche_ad.models import FeatureGMM"),
        ("experiments.build", "kind = 'flow_gmm'"),
        ("experiments.build", "if TYPE_CHECKING:\n    import avalanche_ad.models.hgad"),
    ],
)
def test_a_name_of_a_family_would_be_noticed(tmp_path, module, line):
    path = tmp_path.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert names_of_families(tmp_path)


def modules_after(statement):
    script = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_light_modules_leave_avalanche_out():
    names = [f"{NAME}.{module}" for module in LIGHT]
    every = [
        ".".join(["avalanche_ad", *path.relative_to(ROOT).with_suffix("").parts])
        for module in ("datasets", "features", "models", "reporting")
        for path in sorted((ROOT / module).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    loaded = modules_after(f"import {', '.join([*names, *every])}")
    assert {*names, *every} <= loaded
    assert "avalanche" not in loaded


def test_the_package_and_the_command_line_import_nothing_heavy():
    loaded = modules_after("import avalanche_ad, avalanche_ad.cli")
    assert not {"avalanche", "torch", "matplotlib", "scipy"} & loaded


def test_avalanche_would_be_noticed(tmp_path):
    """An empty module stands for it, since importing the real one takes long."""
    (tmp_path / "avalanche.py").touch()
    first = f"sys.path.insert(0, {str(tmp_path)!r})\n"
    loaded = modules_after(
        f"{first}try:\n    import avalanche_ad.benchmarks\nexcept ImportError: pass"
    )
    assert "avalanche" in loaded
