"""The state of a run: what it is of, what a checkpoint holds, and going on from one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from avalanche.training.supervised import Cumulative, JointTraining

from avalanche_ad.datasets.loading import file_digest
from avalanche_ad.errors import ResultsError
from avalanche_ad.evaluation.csv_logger import TidyCSVLogger
from avalanche_ad.evaluation.metrics import AnomalyMetrics
from avalanche_ad.experiments.checkpoint import (
    StaleCheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from avalanche_ad.experiments.configuration import (
    configuration_differences,
    named_differences,
)
from avalanche_ad.experiments.device import is_available
from avalanche_ad.experiments.folder import LEARNER, RunFolder

__all__ = [
    "Checkpoints",
    "RunState",
    "finished_learner",
    "identity_differences",
    "interrupted_run",
    "learner_id",
    "only",
    "place_differences",
]

Kind = TypeVar("Kind")
Identity = Mapping[str, Any]
"""What a run is of: ``configuration``, ``seed``, ``code`` beside its recipe,
``continued``, the run it goes on from, ``versions``, device and features among them,
and when it is known the digests of its ``data``."""

_log = logging.getLogger(__name__)


def only(kind: type[Kind], every: Iterable[object]) -> Kind:
    """Return the one of a class, which every run has."""
    return next(one for one in every if isinstance(one, kind))


@dataclass
class RunState:
    """What an interrupted run needs to go on; all of it goes into a checkpoint.

    :param strategy: Avalanche's, with model, plugins, metrics and loggers.
    :param options: the model's arguments.
    :param seconds: spent on ``train`` and ``eval`` so far.
    :param next: the experience to learn next, or that is being learned.
    :param within: whether that is the case, between two epochs.
    :param csv_bytes: size of the metrics' file.
    :param ahead: evaluations of experiences to come.
    :param untrained: what the untrained model is worth on them.
    :param training_images: fingerprints of the images of each category learned.
    :param fresh: whether it was begun to make a finished run anew.
    :param begun_with: versions and device that differ from those it goes on with.

    >>> state = RunState(strategy=None, options={"couplings": 4})
    >>> state.next, state.within, state.seconds
    (0, False, {'train': 0, 'eval': 0})
    """

    strategy: Any
    options: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0, "eval": 0})
    next: int = 0
    within: bool = False
    csv_bytes: int = 0
    ahead: list[dict[str, Any]] = field(default_factory=list)
    untrained: dict[str, list[float | None]] | None = None
    fresh: bool = False
    training_images: dict[str, list[str]] = field(default_factory=dict)
    begun_with: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> AnomalyMetrics:
        """The metrics that results are made from."""
        return only(AnomalyMetrics, self.strategy.evaluator.metrics)

    @property
    def logger(self) -> TidyCSVLogger:
        """The logger of the tidy CSV."""
        return only(TidyCSVLogger, self.strategy.evaluator.loggers)


class Checkpoints:
    """Writes a run's checkpoints; what cannot be written costs a warning, not the run.

    :param folder: where.
    :param identity: what the run is of.
    :param state: what is saved.

    >>> from avalanche_ad.experiments.folder import run_folder
    >>> with run_folder(Path("runs/naive")) as folder:
    ...     folder.metrics.touch()
    ...     state = RunState(strategy=None, options={})
    ...     Checkpoints(folder, {"seed": 0}, state).save()
    ...     print(folder.kept)
    True
    """

    def __init__(self, folder: RunFolder, identity: Identity, state: RunState) -> None:
        self.folder = folder
        self.identity = identity
        self.state = state
        self.within_task = True
        self._told: set[str] = set()

    def probe(self) -> None:
        """Find out whether a checkpoint can be written, and leave none."""
        self._save(
            self.folder.probe,
            "no checkpoint can be written",
            "should it be interrupted, there is nothing to resume it from",
        )
        self.folder.probe.unlink(missing_ok=True)

    def save(self) -> None:
        """Write the run's checkpoint, between tasks or where ``state.within`` says."""
        if self.state.within:
            self._save(
                self.folder.checkpoint,
                "no checkpoint can be written inside a task",
                "should it be interrupted, it resumes from an older one",
            )
        else:
            self._save(
                self.folder.checkpoint,
                "no checkpoint can be written",
                "should it be interrupted, it resumes from an older one, if any",
            )

    def save_learner(self) -> None:
        """Write the learner's state for a stream that is to go on."""
        self._save(
            self.folder.learner,
            f"its {LEARNER} cannot be written",
            "no other run can go on from it",
        )

    def _save(self, path: Path, what: str, then: str) -> None:
        self.state.csv_bytes = self.folder.metrics.stat().st_size
        content = {"identity": dict(self.identity), "state": self.state}
        try:
            save_checkpoint(path, content)
        except Exception as error:  # whatever a plugin's pickling may raise
            # a full disk may be mended; what does not pickle will not do so later
            self.within_task &= isinstance(error, OSError)
            if "no checkpoint can be written" not in self._told:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                _log.warning(
                    "%s (%s: %s): the run goes on, but %s",
                    what,
                    type(error).__name__,
                    reason,
                    then,
                )
            self._told.add(what)


def identity_differences(
    before: Identity, now: Identity, *, stream: bool = True
) -> list[str]:
    """Return what makes one run another than the other, a line each.

    :param stream: whether it counts which images arrive when.
    """
    found = configuration_differences(
        before["configuration"], now["configuration"], stream=stream
    )
    if before["seed"] != now["seed"]:
        found.append(f"seed {before['seed']} → {now['seed']}")
    starts = [one.get("continued") or {} for one in (before, now)]
    if starts[0].get("learner") != starts[1].get("learner"):
        named = [f"--from {s['run']}" if s else "no --from" for s in starts]
        found.append(" → ".join(named))
    old, new = before.get("code", {}), now.get("code", {})
    if changed := [n for n in {**old, **new} if old.get(n) != new.get(n)]:
        found.append(f"the code of {', '.join(changed)} changed")
    was, are = (one["versions"]["features"] for one in (before, now))
    if was != are:
        found.append(f"features of the backbone {was} → {are}: its weights changed")
    return found


def place_differences(before: Identity, now: Identity) -> list[str]:
    """Return which versions and devices two runs do not share, a line each."""
    old, new = before["versions"], now["versions"]
    return [
        f"{name} {old.get(name, 'unset')} → {new.get(name, 'unset')}"
        for name in dict.fromkeys([*old, *new])
        if name != "features" and old.get(name) != new.get(name)
    ]


def interrupted_run(
    folder: RunFolder, identity: Identity, device: torch.device
) -> dict[str, Any] | None:
    """Read the checkpoint of an interrupted run, if it is of the run that is wanted.

    Other versions and another device are told in a line. A device that is here is gone
    on with; the tensors of one that is not move to ``device``.

    :param folder: the run's folder.
    :param identity: what the run is to be of.
    :param device: where it is to go on.
    :return: what the checkpoint holds, ``None`` where there is none.
    :raises ResultsError: when the interrupted run is another, or cannot be resumed.
    """
    path = folder.checkpoint
    discard = f"discard it with `avalanche-ad run --fresh`, or by removing {path}"
    try:
        found = load_checkpoint(path, device)
        if found is None:
            return None
        differences = identity_differences(found["identity"], identity)
    except (ResultsError, KeyError, TypeError, AttributeError) as error:
        kind = type(error) if isinstance(error, ResultsError) else ResultsError
        raise kind(
            f"{path.parent} holds an interrupted run that cannot be resumed: {error}; "
            f"mend that, or {discard}"
        ) from error
    if differences:
        raise ResultsError(
            f"{path.parent} holds an interrupted run that is another "
            f"({named_differences(differences)}): resume it with its own settings, or "
            f"{discard}"
        )
    _place(path.parent, found, identity, device)
    return found


def learner_id(run: Path) -> str:
    """Return a digest of a finished run's learner, empty where it has none."""
    path = run / LEARNER
    if not path.is_file():
        return ""
    return file_digest(path)


def finished_learner(
    run: Path, identity: Identity, device: torch.device
) -> dict[str, Any]:
    """Read the learner of a finished run, to go on from with more categories.

    :param run: the run's folder.
    :param identity: what the run that goes on is to be of; all but the stream must be
        as it was.
    :param device: where it is to go on.
    :return: what the state's file holds.
    :raises ResultsError: when there is none, it cannot be opened, or it does not fit.
    """
    path = run / LEARNER
    try:
        found = load_checkpoint(path, device)
        if found is None:
            raise ResultsError(f"{LEARNER} is missing")
        strategy = found["state"].strategy
        # where it began itself does not matter
        before = {**found["identity"], "continued": identity.get("continued")}
        differences = identity_differences(before, identity, stream=False)
    except (ResultsError, KeyError, TypeError, AttributeError) as error:
        mend = "make the run anew by this version and user"
        if isinstance(error, StaleCheckpointError):
            mend = (
                "where cached features are gone, a stream that begins with the "
                "experiences learned brings them back; else make the run anew"
            )
        kind = type(error) if isinstance(error, ResultsError) else ResultsError
        raise kind(
            f"{run}: its learner's state cannot be gone on from: {error}; {mend}"
        ) from error
    if differences:
        raise ResultsError(
            f"{run}: its learner goes on as it was made, and this differs "
            f"({named_differences(differences)}): give what it was made with"
        )
    if isinstance(strategy, (JointTraining, Cumulative)):
        raise ResultsError(
            f"{run}: {type(strategy).__name__} learns from all images at once and has "
            "no state to go on from: run the longer stream as a whole"
        )
    if strategy.model.categories_at_start:
        raise ResultsError(
            f"{run}: its model was made for {strategy.model.num_categories} categories "
            "(categories_at_start) and has no room for more: run the longer stream as "
            "a whole"
        )
    _place(run, found, identity, device)
    return found


def _place(
    where: Path, found: Mapping[str, Any], identity: Identity, device: torch.device
) -> None:
    """Put a state where it can go on, and tell what is other than it was."""
    before, state = found["identity"], found["state"]
    used = str(state.strategy.device)
    if is_available(used):
        identity = {**identity, "versions": {**identity["versions"], "device": used}}
    else:
        state.strategy.device = device
    if used != str(device):
        _log.warning(
            "%s was begun on %s: it goes on on %s",
            where,
            used,
            state.strategy.device,
        )
    if others := place_differences(before, identity):
        _log.warning(
            "%s was begun with others (%s): it goes on, but maybe not to the last bit "
            "as it would have",
            where,
            named_differences(others),
        )
        state.begun_with += [one for one in others if one not in state.begun_with]
