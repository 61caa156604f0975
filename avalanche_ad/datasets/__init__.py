"""What is on disk: samples, readers, loading and validation.

A data set is opened by name with ``open_dataset``; its reader gives an ``AnomalyData``:
its samples, and how to get their pixels.

>>> from avalanche_ad.datasets import open_dataset
>>> data = open_dataset("synthetic", image_size=64)
>>> data.image(data.samples[0]).shape
(64, 64, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avalanche_ad.datasets.digest import category_digests
from avalanche_ad.datasets.disk import DiskData, Problem
from avalanche_ad.datasets.reader import DatasetReader, DiskReader
from avalanche_ad.datasets.registry import DATASETS, check_dataset, open_dataset
from avalanche_ad.datasets.sample import GOOD, UNKNOWN, AnomalyData, Sample
from avalanche_ad.datasets.scanning import is_system_file
from avalanche_ad.datasets.validation import find_problems, verify
from avalanche_ad.datasets.writing import write_mvtec_layout

if TYPE_CHECKING:
    from avalanche_ad.datasets.synthetic import SyntheticAD

__all__ = [
    "DATASETS",
    "GOOD",
    "UNKNOWN",
    "AnomalyData",
    "DatasetReader",
    "DiskData",
    "DiskReader",
    "Problem",
    "Sample",
    "SyntheticAD",
    "category_digests",
    "check_dataset",
    "find_problems",
    "is_system_file",
    "open_dataset",
    "verify",
    "write_mvtec_layout",
]


def __getattr__(name: str) -> object:
    """Import the procedural data set, and SciPy with it, when it is first used."""
    if name == "SyntheticAD":
        from avalanche_ad.datasets.synthetic import SyntheticAD

        return SyntheticAD
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
