"""What made a result: versions, commit and memory of the process."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil

from avalanche_ad import __version__

__all__ = ["git_commit", "package_versions", "peak_rss_mb"]


def peak_rss_mb() -> float:
    """Return the largest memory the process has held so far, in MB."""
    if sys.platform == "win32":
        peak = psutil.Process().memory_info().peak_wset
        return round(peak / 1e6, 1)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # bytes on macOS, kibibytes elsewhere
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)


def package_versions() -> dict[str, str]:
    """Return the versions of all that can change a number."""
    packages = ("torch", "torchvision", "timm", "numpy", "scikit-learn")
    return {
        "avalanche_ad": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("avalanche-lib", "FrEIA", *packages)},
    }


def git_commit() -> str | None:
    """Return the commit of the checkout this package runs from, if it is one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() or None
