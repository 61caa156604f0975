"""Diagnostics: what was forgotten, and why."""

from avalanche_ad.evaluation.diagnostics.expansion import Expansion, expansion_effect

__all__ = ["Expansion", "expansion_effect"]
