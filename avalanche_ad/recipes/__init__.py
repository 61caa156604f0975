"""Recipes: strict TOML descriptions of streams and strategies."""

from avalanche_ad.recipes.recipe import (
    BenchmarkRecipe,
    ExperimentRecipe,
    StrategyRecipe,
    list_recipes,
    load_experiment,
)

__all__ = [
    "BenchmarkRecipe",
    "ExperimentRecipe",
    "StrategyRecipe",
    "list_recipes",
    "load_experiment",
]
