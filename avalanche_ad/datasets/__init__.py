"""What is on disk: samples, readers, loading and validation.

A data set is opened by name with ``open_dataset`` or by its own reader; either gives
an ``AnomalyData``: its samples, and how to get their pixels.

>>> from avalanche_ad.datasets import open_dataset
>>> data = open_dataset("synthetic", size=64)
>>> data.image(data.samples[0]).shape
(64, 64, 3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avalanche_ad.datasets.btad import read_btad
from avalanche_ad.datasets.disk import DiskData, Problem
from avalanche_ad.datasets.folder import read_folder
from avalanche_ad.datasets.mvtec_3d import read_mvtec_3d
from avalanche_ad.datasets.mvtec_ad import read_mvtec_ad
from avalanche_ad.datasets.registry import DATASETS, check_dataset, open_dataset
from avalanche_ad.datasets.sample import GOOD, AnomalyData, Sample
from avalanche_ad.datasets.scanning import is_system_file
from avalanche_ad.datasets.validation import find_problems, verify
from avalanche_ad.datasets.visa import read_visa

if TYPE_CHECKING:
    from avalanche_ad.datasets.synthetic import SyntheticAD, write_mvtec_layout

__all__ = [
    "AnomalyData",
    "DATASETS",
    "DiskData",
    "GOOD",
    "Problem",
    "Sample",
    "SyntheticAD",
    "check_dataset",
    "find_problems",
    "is_system_file",
    "open_dataset",
    "read_btad",
    "read_folder",
    "read_mvtec_3d",
    "read_mvtec_ad",
    "read_visa",
    "verify",
    "write_mvtec_layout",
]


def __getattr__(name: str) -> object:
    """Import the procedural data set, and SciPy with it, when it is first used."""
    if name in {"SyntheticAD", "write_mvtec_layout"}:
        from avalanche_ad.datasets import synthetic

        return getattr(synthetic, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
