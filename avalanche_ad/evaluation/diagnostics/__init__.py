"""Diagnostics: how scores come about, before they are averaged to metrics."""

from avalanche_ad.evaluation.diagnostics.judgement import Judgement, judge

__all__ = ["Judgement", "judge"]
