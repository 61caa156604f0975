"""Diagnostics: how scores come about, before they are averaged to metrics."""

from avalanche_ad.evaluation.diagnostics.category_evaluation import (
    CategoryEvaluation,
    evaluate_categories,
)

__all__ = ["CategoryEvaluation", "evaluate_categories"]
