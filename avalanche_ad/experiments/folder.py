"""The folder of a run: worked on aside, moved to its place when it is complete.

The run works in ``NAME.partial`` beside ``NAME``, or in ``NAME/run.partial`` where
``NAME`` is a mount point or nothing may be written beside it. Such a folder is known
by a marker inside, not by its name: one without it is somebody else's. It holds either
an interrupted run (a checkpoint) or, while it is moved, a finished one
(``results.json``). Whatever ends the process in between, the next command on the same
folder finds one of the two and goes on from there:

1. the files of an older run in ``NAME`` move into the working folder's ``former``;
2. the new files come to ``NAME`` as well, ``results.json`` last, which makes it a run;
3. the working folder goes, with its ``results.json`` first and the older run last.

Only files a run writes are ever moved or removed; all else in ``NAME`` stays.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from avalanche_ad.errors import ResultsError, RunBusyError, TrainingError, writing
from avalanche_ad.experiments.results import (
    WORKING_MARKER,
    is_working_folder,
    read_results,
)

__all__ = ["LEARNER", "RunFolder", "is_worked_on", "run_folder"]

LEARNER = "learner"
"""The learner's whole state in a finished run, from which a stream can go on."""

_MEANING = (
    "avalanche_ad works here; what is in this folder belongs to a run beside it.\n"
)
_RESULTS = "results.json"
_FILES = (_RESULTS, "metrics.csv", "model.json", "model.safetensors", LEARNER)
_CHECKPOINT, _PROBE, _LOCK = "checkpoint", "probe", "run.lock"
_REPLACES, _FORMER, _MOVED = "replaces", "former", ".complete"
_ASIDE = ".partial"
# what file systems put into a new volume
_VOLUME = {"lost+found", ".Trashes", ".fseventsd", "System Volume Information"}

_log = logging.getLogger(__name__)


class RunFolder:
    """Where a run's files are while it is working, and where they go.

    :param out: the run's folder, symbolic links followed.
    :param partial: the folder in which the run works.

    ``arrived`` says that a finished run was moved to its place just now, which an
    earlier process could not.

    >>> with run_folder(Path("runs/naive")) as folder:
    ...     print(folder.partial.name, folder.checkpoint.name, folder.kept)
    naive.partial checkpoint False
    """

    def __init__(self, out: Path, partial: Path) -> None:
        self.out = out
        self.partial = partial
        self.arrived = False

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of an interrupted run."""
        return self.partial / _CHECKPOINT

    @property
    def probe(self) -> Path:
        """A checkpoint to see whether one can be written."""
        return self.partial / _PROBE

    @property
    def metrics(self) -> Path:
        """The tidy CSV of all metric values."""
        return self.partial / "metrics.csv"

    @property
    def learner(self) -> Path:
        """The learner's state at the end of the run."""
        return self.partial / LEARNER

    @property
    def complete(self) -> bool:
        """Whether a finished run is still to be moved to its place."""
        return (self.partial / _RESULTS).is_file()

    @property
    def kept(self) -> bool:
        """Whether there is a finished or an interrupted run, or it cannot be told."""
        try:
            return self.complete or self.checkpoint.exists()
        except OSError:
            return True

    @property
    def moved(self) -> bool:
        """Whether all of a finished run is in its place but the tidying up."""
        return (self.partial / _FORMER / _MOVED).exists() and not self.complete

    def concerns(self, error: OSError) -> bool:
        """Return whether an error may be of this folder: it names no other file."""
        if not isinstance(error.filename, (str, bytes)):
            return True
        path = Path(os.fsdecode(error.filename))
        return path.is_relative_to(self.partial) or path.is_relative_to(self.out)

    def clear(self) -> None:
        """Remove what another run left."""
        _remove_files(self.partial, (*_FILES, _CHECKPOINT, _PROBE, _REPLACES))

    def cut_metrics(self, size: int) -> None:
        """Cut the CSV back to what it held at the checkpoint.

        :raises ResultsError: when it is gone or shorter.
        """
        if not self.metrics.is_file() or self.metrics.stat().st_size < size:
            raise ResultsError(
                f"{self.metrics} was changed since the checkpoint beside it was "
                "written, so the run cannot be resumed: put it back, or discard the "
                "run with `avalanche-ad run --fresh`"
            )
        with self.metrics.open("rb+") as file:
            file.truncate(size)

    def note_replaced(self) -> None:
        """Remember which run is in its place, which the new one may replace."""
        (self.partial / _REPLACES).write_text(self._in_place(), "utf-8")

    def _in_place(self) -> str:
        """Return what tells the run in its place from others, empty for none."""
        results = self.out / _RESULTS
        if not results.is_file():
            return ""
        return hashlib.blake2b(results.read_bytes(), digest_size=16).hexdigest()

    def publish(self) -> None:
        """Move the finished run to its place; it can be called again after a failure.

        :raises OSError: when the file system refuses, or another finished run has come
            to its place meanwhile; the run is then complete in the working folder.
        """
        if not self.out.exists():
            try:
                self.partial.rename(self.out)
            except OSError:  # a lock that is held there, on Windows
                self.out.mkdir(parents=True, exist_ok=True)
            else:
                with suppress(OSError):
                    _remove_files(
                        self.out, (_CHECKPOINT, _REPLACES, _LOCK, WORKING_MARKER)
                    )
                return
        former = self.partial / _FORMER
        if not (former / _MOVED).exists():
            if not former.exists() and self._in_place() not in ("", self._replaces()):
                raise FileExistsError(
                    errno.EEXIST, "another finished run has come there: move it away"
                )
            former.mkdir(exist_ok=True)
            for name in _FILES:
                if (self.out / name).is_file() and not (former / name).exists():
                    _move(self.out / name, former / name)
            (former / _MOVED).touch()
        for name in reversed(_FILES):
            if (self.partial / name).exists():
                _copy(self.partial / name, self.out / name)
        self.tidy()

    def _replaces(self) -> str:
        with suppress(FileNotFoundError):
            return (self.partial / _REPLACES).read_text("utf-8")
        return ""

    def tidy(self) -> None:
        """Remove what no run needs any more, as far as that is possible."""
        with suppress(OSError):
            if not self.partial.is_dir():
                return
            self.clear()
            former = self.partial / _FORMER
            if self.moved:
                # the older run goes last, and its mark after it
                _remove_files(former, _FILES)
                (former / _MOVED).unlink()
            if former.is_dir():
                former.rmdir()


@contextmanager
def run_folder(out: Path) -> Iterator[RunFolder]:
    """Claim a run's folder for the time of the run.

    A finished run that an earlier process could not move to its place is moved first.

    :param out: the run's folder: new, empty, or with a finished run, which the block
        may replace by :meth:`RunFolder.publish`.
    :raises ResultsError: when it holds anything else, cannot be written, or another
        process is working on it; also for a disk that fills up within the block.
    """
    with _held(out) as folder:
        if not folder.complete:
            yield folder
            return
        folder.publish()
        _log.warning("%s: a finished run had not reached its place; now it has", out)
    with _held(out) as folder:
        folder.arrived = True
        yield folder


@contextmanager
def _held(out: Path) -> Iterator[RunFolder]:
    """Hold the lock of a run's working folder, and tell what the disk refuses."""
    with writing(out):
        folder = _found(out)
        lock = FileLock(folder.partial / _LOCK)
        try:
            folder.partial.mkdir(parents=True, exist_ok=True)
            marker = folder.partial / WORKING_MARKER
            if not marker.exists():
                marker.write_text(_MEANING, "utf-8")
            lock.acquire(timeout=0)
        except Timeout:
            raise RunBusyError(
                f"{out}: another process is working on this run; wait for it, or "
                "choose another --out"
            ) from None
        except OSError:
            _leave(folder.partial)
            raise
    try:
        if folder.moved:
            folder.tidy()
        yield folder
    except OSError as error:
        if not folder.concerns(error):
            raise TrainingError(f"{out}: the run broke: {error}") from error
        reason, finished = error.strerror or error, False
        with suppress(OSError):
            finished = folder.complete
        if finished:
            raise ResultsError(
                f"{out}: cannot move the finished run there ({reason}); it is complete "
                f"in {folder.partial}: the same command moves it once that is mended"
            ) from error
        raise ResultsError(
            f"{folder.partial}: cannot write the run ({reason}): choose a writable "
            "--out with free space"
        ) from error
    finally:
        kept = folder.kept
        if not kept:
            folder.tidy()
            # under the lock: whoever holds it next holds a file that is there
            _leave(folder.partial)
        lock.release()


def is_worked_on(out: Path) -> bool:
    """Return whether a run's folder has a working folder, with whatever in it."""
    with suppress(ResultsError, OSError):
        return _found(out).partial.exists()
    return True


def _leave(partial: Path) -> None:
    """Remove an empty working folder; one with anything of somebody else's stays."""
    with suppress(OSError):
        if {path.name for path in partial.iterdir()} <= {_LOCK, WORKING_MARKER}:
            _remove_files(partial, (_LOCK, WORKING_MARKER))
            partial.rmdir()


def _found(out: Path) -> RunFolder:
    """Return a run's folder and where it works, if both may be used."""
    if out.exists() and not out.is_dir():
        raise ResultsError(f"{out} is a file: give a folder as --out")
    if out.name in ("", ".."):
        raise ResultsError(f"{out}: give a new folder as --out, not this one")
    try:
        target = out.resolve()
    except RuntimeError as error:  # links in a circle
        raise ResultsError(f"{out}: {error}: give another --out") from None
    partial = target.with_name(target.name + _ASIDE)
    inside = target / f"run{_ASIDE}"
    if target.is_dir() and (
        os.path.ismount(target)
        or not os.access(target.parent, os.W_OK)
        or is_working_folder(inside)
    ):
        partial = inside
    if os.path.lexists(partial) and not (partial.is_dir() and _is_ours(partial)):
        raise ResultsError(
            f"{partial} is where this run would work, and it is not of this program's "
            "making (or of an earlier version's): move it away, or choose another --out"
        )
    folder = RunFolder(target, partial)
    if not folder.complete and not (partial / _FORMER).exists():
        _check_replaceable(out, folder)
    return folder


def _is_ours(partial: Path) -> bool:
    return (partial / WORKING_MARKER).is_file() or not any(partial.iterdir())


def _check_replaceable(out: Path, folder: RunFolder) -> None:
    """Refuse a folder with anything but a run, which the new one would join."""
    if not folder.out.is_dir():
        return
    known = {folder.partial.name, *_VOLUME}
    if all(path.name in known for path in folder.out.iterdir()):
        return
    try:
        read_results(folder.out)
    except ResultsError:
        raise ResultsError(
            f"{out} is not empty and holds no run (no valid results.json): "
            "give another folder as --out"
        ) from None


def _move(source: Path, target: Path) -> None:
    """Move a file, over what is there; between file systems by way of a copy."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)
        source.unlink()


def _copy(source: Path, target: Path) -> None:
    """Let a file be in another place too, whole or not at all."""
    aside = target.with_name(target.name + _ASIDE)
    aside.unlink(missing_ok=True)
    try:
        aside.hardlink_to(source)
    except OSError:  # a file system without links, or another one
        shutil.copyfile(source, aside)
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
    aside.replace(target)
    # which does nothing where both are links to one file already
    aside.unlink(missing_ok=True)


def _remove_files(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
        (folder / (name + _ASIDE)).unlink(missing_ok=True)
