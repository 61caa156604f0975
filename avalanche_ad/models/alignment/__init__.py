"""How mixtures follow a flow that has moved."""

from avalanche_ad.models.alignment.alignment import (
    Alignment,
    AlignmentRecipe,
    MapsFeatures,
)

__all__ = ["Alignment", "AlignmentRecipe", "MapsFeatures"]
