"""Arguments are held against annotations, defaults, and what is known to break."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GEMPlugin,
    LwFPlugin,
    ReplayPlugin,
)
from avalanche.training.supervised import MER, LwF

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.build import check_strategy
from avalanche_ad.recipes import list_recipes, load_experiment
from avalanche_ad.registry.arguments import check_types
from avalanche_ad.training.plugins import (
    GMMAlignmentPlugin,
    IncrementalMixturePlugin,
    PackNetPlugin,
)

if TYPE_CHECKING:
    from nowhere import Thing


class Base:
    def __init__(self, steps: float = 0.5, mode: Literal["a", "b"] = "a") -> None:
        pass


class Own(Base):
    def __init__(self, flag=False, thing: Thing = None, left=None, **others: Any):
        pass


@pytest.mark.parametrize(
    ("made", "arguments"),
    [
        (
            ReplayPlugin,
            {"mem_size": 1, "batch_size_mem": 8, "storage_policy": object()},
        ),
        (EWCPlugin, {"ewc_lambda": 1, "decay_factor": 0.5, "mode": "online"}),
        (LwFPlugin, {"alpha": [1.0, 2], "temperature": 2}),
        (LwF, {"alpha": [1.0, 2], "eval_every": 1}),
        (PackNetPlugin, {"prune_proportion": [0.5, 0.2]}),
        (PackNetPlugin, {"prune_proportion": abs}),
        (GMMAlignmentPlugin, {"rank": 4, "seed": 3, "shrinkage": 0}),
        # narrower types are of Avalanche's arguments and this project's alone
        (Own, {"steps": 0, "mode": "b", "flag": True, "thing": 3, "left": "x"}),
    ],
)
def test_values_that_fit(made, arguments):
    check_types(made, arguments, "plugin")


@pytest.mark.parametrize(
    ("made", "arguments", "words"),
    [
        (ReplayPlugin, {"mem_size": 0}, "mem_size should be greater .* 1, got 0"),
        (ReplayPlugin, {"mem_size": True}, "mem_size should be a valid integer"),
        (ReplayPlugin, {"mem_size": 3.0}, "mem_size should be a valid integer"),
        (ReplayPlugin, {"task_balanced_dataloader": 1}, "a valid boolean, got 1"),
        (GEMPlugin, {"patterns_per_experience": 0}, "greater .* 1, got 0"),
        (AGEMPlugin, {"sample_size": "x"}, "sample_size should be a valid integer"),
        (EWCPlugin, {"ewc_lambda": "abc"}, "should be a valid number, got 'abc'"),
        (EWCPlugin, {"ewc_lambda": -1.0}, "greater than or equal to 0, got -1"),
        (EWCPlugin, {"mode": 3}, "mode should be a valid string, got 3"),
        (LwFPlugin, {"alpha": "x"}, "alpha should be a valid number"),
        (EWCPlugin, {"ewc_lambda": float("inf")}, "should be a finite number"),
        (LwFPlugin, {"alpha": float("nan")}, "should be a finite number"),
        (MER, {"eval_every": 0.5}, "eval_every should be a valid integer"),
        (PackNetPlugin, {"prune_proportion": "x"}, "should be a valid number"),
        (IncrementalMixturePlugin, {"step_power": 0.5}, "greater than 0.5, got 0.5"),
        # of a base that takes it by ``**options``
        (GMMAlignmentPlugin, {"rank": 0}, "GMMAlignmentPlugin: rank .* got 0"),
        (GMMAlignmentPlugin, {"samples": 1}, "samples .* equal to 2, got 1"),
        (GMMAlignmentPlugin, {"seed": -1}, "seed .* equal to 0, got -1"),
        (GMMAlignmentPlugin, {"precision": "half"}, "'float16' or 'float32', got"),
        (Own, {"mode": "c"}, "Own: mode should be 'a' or 'b', got 'c'"),
        (Own, {"flag": 1}, "flag should be a valid boolean"),
    ],
)
def test_values_that_do_not_fit_are_refused(made, arguments, words):
    with pytest.raises(RecipeError, match=words):
        check_types(made, arguments, "plugin")


@pytest.mark.parametrize("name", list_recipes("strategies"))
def test_shipped_strategies_pass(name):
    check_strategy(load_experiment("synthetic_5x3", name))
