"""The models by the name that recipes and saved models give them."""

from __future__ import annotations

from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.registry import Registry

__all__ = ["MODELS"]

MODELS: Registry[AnomalyModel] = Registry(
    "model",
    "avalanche_ad.models.anomaly_model.AnomalyModel",
    "avalanche_ad.models",
    named_by="kind",
)
"""A new one is a file or a folder in ``avalanche_ad/models``, or in another package."""
