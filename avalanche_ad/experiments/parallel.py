"""Runs side by side, each in a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

from avalanche_ad.datasets.roots import Roots
from avalanche_ad.errors import AvalancheADError, ResultsError
from avalanche_ad.experiments.device import pick_device
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import ExperimentRecipe

__all__ = ["Job", "run_jobs"]

_GRACE = 10.0  # seconds that a process told to stop has for it


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be made.

    :param recipe: what to run.
    :param seed: its seed.
    :param folder: its folder.

    >>> from avalanche_ad.recipes.load import load_experiment
    >>> recipe = load_experiment("synthetic_2x2", "naive")
    >>> print(Job(recipe, seed=3, folder=Path("runs/naive-3")))
    naive, seed 3
    """

    recipe: ExperimentRecipe
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.recipe.strategy_name}, seed {self.seed}"


@dataclass(frozen=True)
class _Settings:
    """What all runs share, as values that another process can be given."""

    data_root: Roots
    device: str
    threads: int | None
    cache: Path


@dataclass
class _Worker:
    job: Job
    process: Any
    messages: Connection
    began: float


def run_jobs(
    jobs: Sequence[Job],
    processes: int,
    *,
    data_root: Roots,
    device: str,
    threads: int | None,
    cache: FeatureCache,
    done: Callable[[Job, float], None],
    failed: Callable[[Job, AvalancheADError], bool],
    announce: Callable[[str], None],
) -> None:
    """Make runs, some at a time, each in a process that does nothing else.

    Processes are spawned: a script that calls this needs the usual
    ``if __name__ == "__main__":``. When this is left early (an interrupt, say) the
    processes are stopped; their runs resume from their checkpoints.

    :param jobs: the runs.
    :param processes: how many at a time.
    :param data_root: the data set's folder, or several; the recipe's own otherwise.
    :param device: where to train.
    :param threads: CPU threads of each process, torch's own choice by default.
    :param cache: the feature cache.
    :param done: called with a finished run and its seconds.
    :param failed: called with a run and its error; no further run is started once it
        returns true. Those under way go on.
    :param announce: called with warnings.
    """
    settings = _Settings(data_root, device, threads, cache.root)
    left, working = list(jobs), list[_Worker]()
    try:
        while left or working:
            while left and len(working) < processes:
                working.append(_start(left.pop(0), settings))
            ready = wait([worker.messages for worker in working])
            for worker in [w for w in working if w.messages in ready]:
                try:
                    kind, content, details = worker.messages.recv()
                except EOFError:  # it died without a word
                    worker.process.join()
                    kind, content, details = "error", _death(worker.process), ""
                if kind == "warning":
                    announce(f"{worker.job}: warning: {content}")
                    continue
                worker.process.join()
                worker.messages.close()
                working.remove(worker)
                if kind == "done":
                    done(worker.job, time.perf_counter() - worker.began)
                    continue
                if details:
                    content.__cause__ = RuntimeError(details)
                if failed(worker.job, content):
                    left.clear()
    finally:
        _stop(working)


def _start(job: Job, settings: _Settings) -> _Worker:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(job, settings, theirs), name=str(job), daemon=True
    )
    with _environment(settings.threads), _interrupts_kept_away():
        process.start()
    theirs.close()
    return _Worker(job, process, ours, time.perf_counter())


def _work(job: Job, settings: _Settings, messages: Connection) -> None:
    """Make one run; what there is to say goes to the parent."""
    signal.signal(signal.SIGTERM, _interrupt)
    Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("avalanche_ad").addHandler(_Messages(messages))
    # what libraries say to programmers
    warnings.filterwarnings("ignore", module=r"(avalanche|torch|timm)\b")

    def show(
        message: Warning | str,
        category: type[Warning],
        *details: object,
        **more: object,
    ) -> None:
        # Avalanche insists on showing its deprecations, whatever the filters
        if not issubclass(category, DeprecationWarning):
            messages.send(("warning", str(message), ""))

    warnings.showwarning = show
    try:
        run_experiment(
            job.recipe,
            job.folder,
            data_root=settings.data_root,
            seed=job.seed,
            device=pick_device(settings.device, settings.threads),
            cache=FeatureCache(settings.cache),
        )
    except KeyboardInterrupt:
        return
    except AvalancheADError as error:
        messages.send(("error", error, traceback.format_exc()))
    except Exception as error:  # a defect, but the other runs can do nothing for it
        told = AvalancheADError(f"{type(error).__name__}: {error}")
        messages.send(("error", told, traceback.format_exc()))
    else:
        messages.send(("done", None, ""))


class _Messages(logging.Handler):
    """Sends what the package logs to the parent."""

    def __init__(self, messages: Connection) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if not hasattr(record, "note"):  # on the data: the parent has told it
            self.messages.send(("warning", record.getMessage(), ""))


def _end_with_parent() -> None:
    """Stop this process when its parent is killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _death(process: Any) -> ResultsError:
    code = process.exitcode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return ResultsError(
        f"its process died ({how}); if memory ran out, take fewer --jobs"
    )


@contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    """Set what a process reads when it first imports torch and NumPy."""
    wanted = {"OMP_WAIT_POLICY": "PASSIVE"}
    if threads is not None:
        wanted["OMP_NUM_THREADS"] = str(threads)
    added = {name: text for name, text in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _interrupts_kept_away() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: the parent is to stop them."""
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    # started with the first process otherwise, and it would lift the block
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(working: Sequence[_Worker]) -> None:
    for worker in working:
        worker.process.terminate()
    until = time.monotonic() + _GRACE
    for worker in working:
        worker.process.join(max(0.0, until - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.messages.close()
