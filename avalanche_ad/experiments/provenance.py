"""What made a result: features, versions, commit and memory of the process."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil

from avalanche_ad import __version__
from avalanche_ad.errors import ResultsError

__all__ = [
    "check_data_of_run",
    "check_same_data",
    "check_same_features",
    "features_id",
    "git_commit",
    "package_versions",
    "peak_rss_mb",
]

if TYPE_CHECKING:
    from avalanche_ad.features import Backbone

Kind = TypeVar("Kind")

_MEND = "take another folder with --out, or remove the older runs"
_NAMED = 5


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
    groups = _grouped(made)
    if len(groups) > 1:
        named = "; ".join(f"{key}: {', '.join(who)}" for key, who in groups)
        raise ResultsError(
            f"runs were made with different features of backbone {backbone} ({named}), "
            f"so they do not compare; {_MEND}"
        )


def check_same_data(
    made: Iterable[tuple[str, Mapping[str, str] | None]], mend: str = _MEND
) -> None:
    """Refuse results that do not compare, for images or masks changed between them.

    :param made: what the results are called, and the digests of their data by category,
        as :attr:`AnomalyBenchmark.digests`; None of those by early versions, which are
        left out.
    :param mend: what to do about it.
    :raises ResultsError: when digests differ; it names the categories.
    """
    groups = _grouped(made)
    if len(groups) > 1:
        every = [digests for digests, _ in groups]
        names = dict.fromkeys(name for digests in every for name in digests)
        changed = [n for n in names if len({one.get(n) for one in every}) > 1]
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        named = " | ".join(", ".join(who) for _, who in groups)
        raise ResultsError(
            f"runs were made with different images or masks: "
            f"{', '.join(changed[:_NAMED])}{more} changed ({named}), so they do not "
            f"compare; {mend}"
        )


def check_data_of_run(
    folder: Path, made: Mapping[str, str] | None, now: Mapping[str, str] | None
) -> None:
    """Refuse a run that was made with other images than there are now.

    :param folder: the run's folder.
    :param made: digests of the data it was made with, None where it keeps none.
    :param now: digests of the data as it is, None where it cannot be read.
    :raises ResultsError: naming the categories that changed.
    """
    check_same_data(
        [(folder.name, made), ("the data as it is now", now)],
        f"choose another --out, remove {folder}, or give the data it was made with",
    )


def _grouped(made: Iterable[tuple[str, Kind | None]]) -> list[tuple[Kind, list[str]]]:
    """Return what results keep of their origin, each with the names of the results."""
    groups: list[tuple[Kind, list[str]]] = []
    for name, kept in made:
        if not kept:
            continue
        who = next((who for other, who in groups if other == kept), None)
        if who is None:
            groups.append((kept, [name]))
        else:
            who.append(name)
    return groups


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
