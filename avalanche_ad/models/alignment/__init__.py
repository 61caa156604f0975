"""How mixtures follow a flow that has moved."""

from avalanche_ad.models.alignment.alignment import Alignment

__all__ = ["Alignment"]
