"""A progress bar on the terminal while work goes on; light to import."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["RunProgress"]


class RunProgress:
    """One progress bar for a run: features, then training and evaluation.

    Shown on terminals only, on standard error; use as a context manager.

    :param console: where to draw.
    :param enabled: whether to draw at all.

    >>> with RunProgress(Console(stderr=True), enabled=False) as progress:
    ...     progress.start("training", total=2)
    ...     progress.advance("training, epoch 1/2")
    """

    def __init__(self, console: Console, enabled: bool = True) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (enabled and console.is_terminal),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def start(self, what: str, total: int) -> None:
        """Begin a stage of the run."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total)

    def report(self, what: str, done: int, total: int) -> None:
        """Set what is being done and how far it is."""
        if self._task is None:
            self.start(what, total)
        assert self._task is not None
        self._bar.update(self._task, description=what, completed=done, total=total)

    def advance(self, what: str) -> None:
        """One step further."""
        if self._task is not None:
            self._bar.update(self._task, description=what, advance=1)
