"""One tidy CSV file of every metric value of a run."""

from __future__ import annotations

import csv
import io
import re
from numbers import Integral, Real
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from avalanche.logging import BaseLogger

from avalanche_ad.errors import ResultsError
from avalanche_ad.training.experiences import experiences_of

__all__ = ["COLUMNS", "TidyCSVLogger", "learning_experience"]

COLUMNS = (
    "step",
    "training_experience",
    "experience",
    "category",
    "stream",
    "metric",
    "value",
)
_HEADER = (",".join(COLUMNS) + "\n").encode()
_EXPERIENCE = re.compile(r"Exp(\d+)$")
_STREAM = re.compile(r"(.+)_stream$")


class TidyCSVLogger(BaseLogger):  # type: ignore[misc]
    """Write one row per metric value: any Avalanche metric that is a single number.

    The columns are ``step`` (the value's x position, training iterations as a rule),
    ``training_experience`` (the latest, empty before any), ``experience`` and
    ``category`` (empty where the value spans several), ``stream``, ``metric`` and
    ``value`` (the shortest text that reads back as the same float).

    Rows are appended at the end of every training epoch and experience and of every
    evaluation, in one write of whole lines; the file is closed in between, so a
    killed process loses at most the evaluation that was running. An existing file is
    continued, an unfinished last line dropped first.

    :param path: the CSV file; its folder is created.
    :raises ResultsError: when the file cannot be written or is not one of this logger.

    >>> with TidyCSVLogger("run/metrics.csv") as logger:  # doctest: +SKIP
    ...     evaluator = EvaluationPlugin(anomaly_metrics(names), loggers=[logger])
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = path
        self._training_experience: int | None = None
        self._rows: list[tuple[object, ...]] = []
        self._prepare()

    def _prepare(self) -> None:
        path = Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            existing = path.read_bytes() if path.exists() else b""
            complete = existing[: existing.rfind(b"\n") + 1]
            if complete and not complete.startswith(_HEADER):
                raise ResultsError(
                    f"{path}: expected a metrics file with the columns "
                    f"{','.join(COLUMNS)}, found another first line; choose another "
                    "path or move the file away"
                )
            if complete != existing or not complete:
                path.write_bytes(complete or _HEADER)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ResultsError:
        return ResultsError(
            f"{self.path}: cannot write the metrics file "
            f"({error.strerror or error}); choose a writable path with free space"
        )

    def __enter__(self) -> TidyCSVLogger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is still held back; the logger can be used on."""
        self.flush()

    def flush(self) -> None:
        """Append the rows gathered so far as whole lines."""
        if not self._rows:
            return
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._rows)
        self._rows = []
        try:
            with Path(self.path).open("ab", buffering=0) as file:
                file.write(text.getvalue().encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def log_single_metric(self, name: str, value: object, x_plot: int) -> None:
        """Keep one value; anything but a single number is left to other loggers.

        :param name: ``METRIC/…_phase/STREAM_stream/TaskTTT/ExpEEE/CATEGORY``, of which
            all parts but the first may be missing.
        :param value: the metric's value.
        :param x_plot: its x position.
        """
        number = _number(value)
        if number is None:
            return
        metric, *parts = name.split("/")
        experience: int | str = ""
        category = stream = ""
        for part in parts:
            if match := _EXPERIENCE.match(part):
                experience = int(match[1])
            elif match := _STREAM.match(part):
                stream = match[1]
            elif experience != "":
                category = part
        training = self._training_experience
        self._rows.append(
            (
                x_plot,
                "" if training is None else training,
                experience,
                category,
                stream,
                metric,
                repr(number),
            )
        )

    def before_training_exp(
        self,
        strategy: Any,
        metric_values: list[Any],
        **kwargs: object,
    ) -> None:
        """Note which experience is being learned."""
        self._training_experience = learning_experience(strategy)

    def after_training_epoch(self, *args: object, **kwargs: object) -> None:
        """Write the epoch's rows."""
        self.flush()

    def after_training_exp(self, *args: object, **kwargs: object) -> None:
        """Write the experience's rows."""
        self.flush()

    def after_eval(self, *args: object, **kwargs: object) -> None:
        """Write the evaluation's rows."""
        self.flush()


def learning_experience(strategy: Any) -> int:
    """Return the index of the experience that is being learned.

    Avalanche's joint training learns the whole stream as its first experience; it
    counts as the last here, since all of it is learned then.
    """
    together = experiences_of(strategy)
    return max(int(experience.current_experience) for experience in together)


def _number(value: object) -> float | int | None:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None
