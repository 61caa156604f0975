"""Continual learning for industrial anomaly detection, on Avalanche."""

from __future__ import annotations

__version__ = "0.1.0"
