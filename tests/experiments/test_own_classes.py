"""Classes of one's own that are not as they should be: told early, in one line."""

from __future__ import annotations

import json
import sys

import pytest
from torch import nn

from avalanche_ad.errors import AvalancheADError, RecipeError, TrainingError
from avalanche_ad.experiments.configuration import updated_configuration
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.models.memory import kept_tensors
from avalanche_ad.models.storage import load_model
from avalanche_ad.recipes import load_experiment
from avalanche_ad.recipes.model_options import model_class

MODEL = """
import torch
from torch import nn
from avalanche_ad.models import AnomalyModel, FeatureGMM, FlowGMM, ModelOptions


class Small(FeatureGMM):
    kind = "small"


class Choice(FeatureGMM):
    kind = "choice"

    @classmethod
    def built_from(cls, options):
        return Small, options.arguments


class Coreset(FeatureGMM):
    kind = "coreset"
    memory_kind = "coreset"


class Dictionary(FeatureGMM):
    kind = "dictionary"

    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


class Tied(FeatureGMM):
    kind = "tied"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.one = nn.Parameter(torch.ones(3), requires_grad=False)
        self.other = nn.Parameter(self.one.detach(), requires_grad=False)


class Nameless(FeatureGMM):
    pass


class Mapless(AnomalyModel):
    kind = "mapless"


class MyFlow(FlowGMM):
    kind = "my_flow"
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a model of a module that lies beside the recipe."""
    (tmp_path / "own_models.py").write_text(MODEL)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def make(name, strategy="feature_gmm", *overrides):
        recipe = load_experiment(
            "synthetic_2x2",
            strategy,
            [f"model.type=own_models.{name}", "synthetic.train_images=6", *overrides],
        )
        run_experiment(recipe, tmp_path / "run")
        return load_model(tmp_path / "run")

    yield make
    sys.modules.pop("own_models", None)


@pytest.mark.parametrize("name", ["Small", "Choice", "Tied"])
def test_it_runs_and_is_loaded(run, name):
    model, description = run(name)
    assert type(model).__name__ == ("Small" if name == "Choice" else name)
    assert description["type"] == f"own_models.{type(model).__name__}"


@pytest.mark.parametrize(
    ("name", "strategy", "told"),
    [
        ("Coreset", "feature_gmm", "keeps 'coreset' in memory: expected exemplars"),
        ("Dictionary", "feature_gmm", "_extra_state of its state is no tensor"),
        ("Mapless", "feature_gmm", "Mapless lacks "),
        ("MyFlow", "packnet", "packnet is of flow_gmm"),
    ],
)
def test_a_wrong_class_is_told_before_it_learns(run, tmp_path, name, strategy, told):
    with pytest.raises(AvalancheADError, match=told) as caught:
        run(name, strategy, *(["model.packnet=true"] if name == "MyFlow" else []))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_part_called_memory_is_no_answer():
    module = nn.Module()
    module.memory = nn.Linear(2, 2)
    assert [len(t) for t in kept_tensors(module, "parameters").values()] == [2]
    module.memory_kind = "coreset"
    with pytest.raises(TrainingError, match="coreset"):
        kept_tensors(module, "parameters")


def test_reading_a_record_imports_nothing_it_names(tmp_path, monkeypatch):
    (tmp_path / "surprise.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    recipe = load_experiment("synthetic_2x2", "naive")
    record = json.loads(json.dumps(recipe.model_dump(mode="json")))
    record["benchmark"]["model"]["type"] = "surprise.Model"
    assert updated_configuration(record) == record
    with pytest.raises(RecipeError, match="surprise"):
        model_class("surprise.Model")


def test_packnet_without_packnet_is_refused():
    with pytest.raises(RecipeError, match="packnet = false is type = 'flow_gmm'"):
        load_experiment(
            "synthetic_2x2",
            "naive",
            ["model.type=packnet_flow_gmm", "model.packnet=false"],
        )
    recipe = load_experiment("synthetic_2x2", "packnet")
    again = load_experiment(
        "synthetic_2x2", "naive", ["model.type=packnet_flow_gmm", "model.couplings=2"]
    )
    assert recipe.benchmark.model.packnet
    assert again.benchmark.model.packnet
