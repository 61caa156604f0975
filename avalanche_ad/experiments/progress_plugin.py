"""Training minibatches as steps of a progress bar."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_ad.experiments.progress import RunProgress

__all__ = ["ProgressPlugin"]


class ProgressPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Advance a progress bar by a step for every training minibatch.

    >>> from rich.console import Console
    >>> plugin = ProgressPlugin()
    >>> plugin.progress = RunProgress(Console(stderr=True), enabled=False)
    >>> plugin.what = "task 1 of 5"
    """

    def __init__(self) -> None:
        super().__init__()
        self.progress: RunProgress | None = None
        self.what = ""

    def __getstate__(self) -> dict[str, Any]:
        # a checkpoint holds plugins, and a terminal cannot be stored
        return {**self.__dict__, "progress": None}

    def after_training_iteration(
        self,
        strategy: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Advance the bar."""
        if self.progress is not None:
            epoch = strategy.clock.train_exp_epochs + 1
            self.progress.advance(f"{self.what}, epoch {epoch}/{strategy.train_epochs}")
