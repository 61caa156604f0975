"""Scores: how a model's named maps become one score map and one score an image."""

from avalanche_ad.models.scores.registry import SCORES, score_named
from avalanche_ad.models.scores.score import Score

__all__ = ["SCORES", "Score", "score_named"]
