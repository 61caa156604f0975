"""The data sets by name. A new one takes its file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from avalanche_ad.datasets.btad import scan_btad
from avalanche_ad.datasets.disk import DiskData, Problem
from avalanche_ad.datasets.folder import scan_folder
from avalanche_ad.datasets.mvtec_3d import scan_mvtec_3d
from avalanche_ad.datasets.mvtec_ad import scan_mvtec_ad
from avalanche_ad.datasets.sample import AnomalyData, Sample
from avalanche_ad.datasets.scanning import Found
from avalanche_ad.datasets.validation import Progress, find_problems
from avalanche_ad.datasets.visa import scan_visa
from avalanche_ad.errors import DatasetError

__all__ = ["DATASETS", "check_dataset", "open_dataset"]

SYNTHETIC = "synthetic"

_SCANS: dict[str, Callable[[Path, Sequence[str] | None], Found]] = {
    "mvtec_ad": scan_mvtec_ad,
    "visa": scan_visa,
    "btad": scan_btad,
    "mvtec_3d": scan_mvtec_3d,
    "folder": scan_folder,
}

DATASETS: tuple[str, ...] = (SYNTHETIC, *_SCANS)
"""Names that ``open_dataset`` knows."""


def open_dataset(
    name: str,
    root: Path | None = None,
    categories: Sequence[str] | None = None,
    *,
    size: int = 128,
    seed: int = 0,
) -> AnomalyData:
    """Open a data set by name.

    :param name: one of ``DATASETS``.
    :param root: its folder; not needed for ``"synthetic"``.
    :param categories: a selection; all otherwise, always in the data set's own order.
    :param size: side of the synthetic images in pixels; the others have their own.
    :param seed: what the synthetic images are drawn from.
    :raises DatasetError: when the name is unknown, the folder is not given, or at the
        first thing in it that would break training.
    """
    if name == SYNTHETIC:
        from avalanche_ad.datasets.synthetic import SyntheticAD

        return SyntheticAD(size=size, seed=seed, categories=categories)
    return DiskData.open(name, _scan(name, root, categories))


def check_dataset(
    name: str,
    root: Path | None = None,
    categories: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[Problem]:
    """List every problem of a data set: of its structure, then of its files.

    :param name: one of ``DATASETS``.
    :param root: its folder; not needed for ``"synthetic"``.
    :param categories: a selection; all otherwise.
    :param progress: called after every image with (done, total).
    :return: the errors, then the notes; empty if all is well.
    :raises DatasetError: when the name is unknown or the folder is not given.
    """
    if name == SYNTHETIC:
        return find_problems(open_dataset(name, None, categories), progress)
    found = list(_scan(name, root, categories))
    samples = tuple(item for item in found if isinstance(item, Sample))
    structure = [item for item in found if isinstance(item, Problem)]
    content = find_problems(DiskData(name, samples), progress)
    # Both passes meet a mask that is missing.
    problems = dict.fromkeys(structure + content)
    return sorted(problems, key=lambda problem: problem.severity != "error")


def _scan(name: str, root: Path | None, categories: Sequence[str] | None) -> Found:
    if name not in _SCANS:
        close = get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise DatasetError(
            f"unknown data set {name!r}; {hint}Known: {', '.join(DATASETS)}"
        )
    if root is None:
        raise DatasetError(f"data set {name} needs --data DIR, the folder it is in")
    return _SCANS[name](Path(root), categories)
