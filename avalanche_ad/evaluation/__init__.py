"""How well anomalies are found, and how much of it is forgotten.

``detection`` and ``continual`` hold the measures as pure functions; ``measures`` the
metrics by name; ``metrics`` and ``csv_logger`` bring them into Avalanche's evaluation
loop. Avalanche takes seconds to import, so the names that need it are looked up on
first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from avalanche_ad.evaluation.anomaly_metric import AnomalyMetric, CurveMetric
from avalanche_ad.evaluation.detection import UndefinedMetricWarning
from avalanche_ad.evaluation.detection_curve import DetectionCurve
from avalanche_ad.evaluation.registry import DEFAULT_METRICS, METRICS, metric_names

if TYPE_CHECKING:
    from avalanche_ad.evaluation.csv_logger import TidyCSVLogger
    from avalanche_ad.evaluation.metrics import AnomalyMetrics, anomaly_metrics

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "AnomalyMetric",
    "AnomalyMetrics",
    "CurveMetric",
    "DetectionCurve",
    "TidyCSVLogger",
    "UndefinedMetricWarning",
    "anomaly_metrics",
    "metric_names",
]

_MODULES = {
    "AnomalyMetrics": "metrics",
    "TidyCSVLogger": "csv_logger",
    "anomaly_metrics": "metrics",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
