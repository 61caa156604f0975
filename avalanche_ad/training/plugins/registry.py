"""Plugins by name, as recipes and the command line give them."""

from __future__ import annotations

from avalanche.core import BasePlugin

from avalanche_ad.registry import Registry

__all__ = ["PLUGINS"]

_SUCH_AS = "avalanche.training.plugins.EWCPlugin"

PLUGINS: Registry[BasePlugin] = Registry(
    "plugin",
    "avalanche.core.BasePlugin",
    "avalanche_ad.training.plugins",
    named_by="__name__",
    such_as=_SUCH_AS,
    also=f", or give a dotted path such as {_SUCH_AS!r}",
)
"""The plugins of this package by the names of their classes, and those of others.

>>> PLUGINS.find("CalibrationPlugin").__name__
'CalibrationPlugin'
"""
