"""What made a result: features, versions, commit and memory of the process."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import psutil

from avalanche_ad import __version__
from avalanche_ad.errors import ResultsError
from avalanche_ad.features import Backbone

__all__ = [
    "check_same_features",
    "features_id",
    "git_commit",
    "package_versions",
    "peak_rss_mb",
]


def features_id(backbone: Backbone) -> str:
    """Return what results keep of the features they were made with."""
    return backbone.fingerprint()[:12]


def check_same_features(backbone: str, made: Iterable[tuple[str, str | None]]) -> None:
    """Refuse results that do not compare, for a weight file changed between them.

    :param backbone: its name.
    :param made: what the results are called, and the :func:`features_id` they keep;
        None of those by early versions, which are left out.
    :raises ResultsError: when features differ.
    """
    groups: dict[str, list[str]] = {}
    for name, features in made:
        if features is not None:
            groups.setdefault(features, []).append(name)
    if len(groups) > 1:
        named = "; ".join(f"{key}: {', '.join(who)}" for key, who in groups.items())
        raise ResultsError(
            f"runs were made with different features of backbone {backbone} ({named}), "
            "so they do not compare; take another folder with --out, or remove the "
            "older runs"
        )


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
