"""What of Avalanche cannot work on anomaly streams, and why, in a line each."""

from __future__ import annotations

__all__ = ["UNSUPPORTED"]

_LAST_LINEAR = "it {} a classifier's last Linear layer, and a flow-GMM has none"

UNSUPPORTED: dict[str, str] = {
    "LFL": _LAST_LINEAR.format("freezes"),
    "LFLPlugin": _LAST_LINEAR.format("freezes"),
    "BiC": _LAST_LINEAR.format("corrects the bias of"),
    "BiCPlugin": _LAST_LINEAR.format("corrects the bias of"),
}
"""Name of a strategy or plugin class of Avalanche → reason."""
