"""Recorded configurations: what makes two runs the same, and how differences read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from avalanche_ad.experiments.configuration import (
    configuration_differences,
    named_differences,
    run_configuration,
)
from avalanche_ad.recipes import load_experiment


def _recorded(
    *overrides: str, strategy: str = "replay", data: str | None = None
) -> Any:
    recipe = load_experiment("synthetic_5x3", strategy, overrides)
    made = run_configuration(recipe, None if data is None else Path(data))
    return json.loads(json.dumps(made))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((), (), []),
        ((), ("training.epochs=4",), ["training.epochs 24 → 4"]),
        ((), ("plugins.0.mem_size=7",), ["plugins.0.mem_size 192 → 7"]),
        (("image_size=64",), (), ["image_size 64 → 128"]),
        ((), ("order_seed=3",), ["order_seed unset → 3"]),
        (
            (),
            ("model.couplings=2", "model.clamp=1.0"),
            ["model.couplings 6 → 2", "model.clamp 1.9 → 1.0"],
        ),
        (
            ("features.options.weights=a.st",),
            ("features.options.weights=b/a.st",),
            [],
        ),
        (
            (),
            ("features.options.weights=a.st",),
            ['features.options.weights unset → "a.st"'],
        ),
    ],
)
def test_differences_are_spelt_as_set_takes_them(
    before: tuple[str, ...], now: tuple[str, ...], expected: list[str]
) -> None:
    found = configuration_differences(_recorded(*before), _recorded(*now))
    assert sorted(found) == sorted(expected)


def test_where_the_data_lies_does_not_count() -> None:
    for data in (None, "./d/", "/elsewhere/d"):
        assert not configuration_differences(_recorded(data="d"), _recorded(data=data))


def test_another_strategy_is_told_by_name_and_by_plugins() -> None:
    found = configuration_differences(_recorded(), _recorded(strategy="naive"))
    assert '''strategy's name "replay" → "naive"''' in found
    assert "plugins.0.mem_size 192 → unset" in found


def test_a_configuration_of_no_known_version_still_compares() -> None:
    found = configuration_differences({"data": "d", "old": {"x": 1}}, _recorded())
    assert "old.x 1 → unset" in found


def test_many_differences_fit_in_a_line() -> None:
    assert named_differences(["a 1 → 2"]) == "a 1 → 2"
    assert named_differences(list("abcde")) == "a; b; c; and 2 more"
