"""Flows that see each position among its neighbours, one for each category."""

from avalanche_ad.models.context_flow.context_flow import ContextFlowGMM
from avalanche_ad.models.context_flow.options import ContextFlowOptions

__all__ = ["ContextFlowGMM", "ContextFlowOptions"]
