"""The folder of a run: worked on aside, moved to its place when it is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from avalanche_ad.errors import ResultsError, RunBusyError, writing
from avalanche_ad.experiments.results import read_results

__all__ = ["RunFolder", "run_folder"]


class RunFolder:
    """Where a run's files are while it is working, and where they go.

    :param out: the run's folder.
    :param partial: the folder beside it in which the run works.
    """

    def __init__(self, out: Path, partial: Path) -> None:
        self.out = out
        self.partial = partial

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of an interrupted run."""
        return self.partial / "checkpoint"

    @property
    def metrics(self) -> Path:
        """The tidy CSV of all metric values."""
        return self.partial / "metrics.csv"

    def clear(self) -> None:
        """Remove what another run left."""
        for path in self.partial.iterdir():
            if path.name != "run.lock":
                path.unlink()

    def cut_metrics(self, size: int) -> None:
        """Cut the CSV back to what it held at the checkpoint."""
        with self.metrics.open("rb+") as file:
            file.truncate(size)

    def publish(self) -> None:
        """Move the finished run to its place; an older run there goes only then."""
        self.checkpoint.unlink(missing_ok=True)
        (self.partial / "run.lock").unlink(missing_ok=True)
        old = self.out.with_name(self.out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if self.out.exists():
            self.out.rename(old)
        self.partial.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def run_folder(out: Path) -> Iterator[RunFolder]:
    """Claim a run's folder for the time of the run.

    :param out: the run's folder; one with a finished run may be replaced, if it is of
        the same recipe, which :func:`~avalanche_ad.experiments.runner.finished_run`
        checks.
    :raises ResultsError: when it holds anything else, cannot be written, or another
        process is working on it; also for a disk that fills up within the block.
    """
    partial = _claimed(out)
    lock = FileLock(partial / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunBusyError(
            f"{out}: another process is working on this run; wait for it, or choose "
            "another --out"
        ) from None
    folder = RunFolder(out, partial)
    try:
        yield folder
    except OSError as error:
        raise ResultsError(
            f"{partial}: cannot write the run ({error.strerror or error}): choose a "
            "writable --out with free space"
        ) from error
    finally:
        if partial.exists() and not folder.checkpoint.exists():
            # not published, and nothing to resume from
            shutil.rmtree(partial, ignore_errors=True)
        lock.release()


def _claimed(out: Path) -> Path:
    """Check that a run's folder may be written, and return the folder aside."""
    with writing(out):
        if out.exists():
            if not out.is_dir():
                raise ResultsError(f"{out} is a file: give a folder as --out")
            if any(out.iterdir()):
                _check_replaceable(out)
        if out.name in ("", ".."):
            raise ResultsError(f"{out}: give a new folder as --out, not this one")
        partial = out.with_name(out.name + ".partial")
        partial.mkdir(parents=True, exist_ok=True)
        probe = partial / ".writable"
        probe.touch()
        probe.unlink()
    return partial


def _check_replaceable(out: Path) -> None:
    """Refuse a folder with anything but a run, which the new one would replace."""
    try:
        read_results(out)
    except ResultsError:
        raise ResultsError(
            f"{out} is not empty and holds no run (no valid results.json): "
            "give another folder as --out"
        ) from None
