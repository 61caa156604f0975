"""Continual learning for industrial anomaly detection, on Avalanche.

The names below are imported on first use, since Avalanche takes seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avalanche_ad.benchmarks import (
        SplitBTAD,
        SplitCSV,
        SplitFolder,
        SplitMPDD,
        SplitMVTec3D,
        SplitMVTecAD,
        SplitMVTecAD2,
        SplitMVTecLOCO,
        SplitRealIAD,
        SplitSyntheticAD,
        SplitVisA,
        anomaly_benchmark,
    )
    from avalanche_ad.evaluation import anomaly_metrics
    from avalanche_ad.features import make_backbone
    from avalanche_ad.models import FeatureGMM, FlowGMM
    from avalanche_ad.training import (
        DynamicFlowGMM,
        FlowGMMLoss,
        load_dynamic_model,
        make_optimizer,
    )

__version__ = "0.1.0"

__all__ = [
    "DynamicFlowGMM",
    "FeatureGMM",
    "FlowGMM",
    "FlowGMMLoss",
    "SplitBTAD",
    "SplitCSV",
    "SplitFolder",
    "SplitMPDD",
    "SplitMVTec3D",
    "SplitMVTecAD",
    "SplitMVTecAD2",
    "SplitMVTecLOCO",
    "SplitRealIAD",
    "SplitSyntheticAD",
    "SplitVisA",
    "__version__",
    "anomaly_benchmark",
    "anomaly_metrics",
    "load_dynamic_model",
    "make_backbone",
    "make_optimizer",
]

_MODULES = {
    "DynamicFlowGMM": "training",
    "FeatureGMM": "models",
    "FlowGMM": "models",
    "FlowGMMLoss": "training",
    "SplitBTAD": "benchmarks",
    "SplitCSV": "benchmarks",
    "SplitFolder": "benchmarks",
    "SplitMPDD": "benchmarks",
    "SplitMVTec3D": "benchmarks",
    "SplitMVTecAD": "benchmarks",
    "SplitMVTecAD2": "benchmarks",
    "SplitMVTecLOCO": "benchmarks",
    "SplitRealIAD": "benchmarks",
    "SplitSyntheticAD": "benchmarks",
    "SplitVisA": "benchmarks",
    "anomaly_benchmark": "benchmarks",
    "anomaly_metrics": "evaluation",
    "load_dynamic_model": "training",
    "make_backbone": "features",
    "make_optimizer": "training",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
