"""Recipes: strict TOML descriptions of streams and strategies.

A benchmark recipe says what is learned in which order and with what budget; a strategy
recipe says which Avalanche strategy and plugins learn it. Both are validated as a
whole before anything runs; unknown keys, wrong types and unknown names are refused.
"""

from avalanche_ad.recipes.load import list_recipes, load_experiment, read_toml
from avalanche_ad.recipes.model_options import model_options
from avalanche_ad.recipes.schema import (
    BenchmarkRecipe,
    ExperimentRecipe,
    FeaturesRecipe,
    PluginRecipe,
    PublishedRecipe,
    StrategyRecipe,
    SyntheticRecipe,
    TrainingRecipe,
)

__all__ = [
    "BenchmarkRecipe",
    "ExperimentRecipe",
    "FeaturesRecipe",
    "PluginRecipe",
    "PublishedRecipe",
    "StrategyRecipe",
    "SyntheticRecipe",
    "TrainingRecipe",
    "list_recipes",
    "load_experiment",
    "model_options",
    "read_toml",
]
