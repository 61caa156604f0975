"""Avalanche streams of anomaly experiences."""

from avalanche_ad.benchmarks.anomaly import AnomalyBenchmark, anomaly_benchmark
from avalanche_ad.benchmarks.order import split_categories
from avalanche_ad.benchmarks.split import (
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
)

__all__ = [
    "AnomalyBenchmark",
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
    "anomaly_benchmark",
    "split_categories",
]
