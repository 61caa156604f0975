"""Controlled experiments on forgetting, one per file; ``avalanche-ad experiment``."""

from __future__ import annotations

from importlib import import_module

from avalanche_ad.errors import RecipeError
from avalanche_ad.experiments.studies.study import Study
from avalanche_ad.registry import unknown

__all__ = ["STUDIES", "find_study"]

STUDIES = {
    "expansion": "what new centres alone do to the scores",
    "few_shot_recovery": "what a few old images and a few steps bring back",
    "what_to_update": "which part, trained on the next task, does the harm",
    "ladder": "how much of forgetting an alignment on real old data recovers",
    "drift": "how far latents leave their centres",
    "parameter_change": "which part of the model moves most",
    "convergence": "how fast categories are learned, and what long training costs",
    "category_inference": "what task identity would change",
    "ablation": "what every plugin adds, alone and together",
}
"""Name → the question it answers."""


def find_study(name: str) -> Study:
    """Return an experiment by its name.

    :raises RecipeError: naming those that there are.
    """
    if name not in STUDIES:
        raise RecipeError(unknown("experiment", name, STUDIES))
    study: Study = import_module(f"{__name__}.{name}").STUDY
    return study
