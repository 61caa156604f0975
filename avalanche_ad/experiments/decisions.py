"""From scores to decisions: which threshold an image's score is held against."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avalanche_ad.errors import (
    RecipeError,
    ResultsError,
)
from avalanche_ad.models.thresholds import FalseAlarms, HeldOutScores

__all__ = ["DecisionThresholds", "Threshold"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Threshold:
    """Which score calls an image anomalous: one of the fields, or the run's quantile.

    :param level: share of new normals that shall lie below, of each category.
    :param score: one score for all categories.
    :param f1max: the score of largest F1 on the test split, of each category.

    >>> Threshold.parse("0.99")
    Threshold(level=0.99, score=None, f1max=False)
    >>> Threshold.parse("score:0.5")
    Threshold(level=None, score=0.5, f1max=False)
    """

    level: float | None = None
    score: float | None = None
    f1max: bool = False

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read what ``--threshold`` takes.

        :param text: ``quantile``; ``f1max``; a number between 0 and 1, a level; any
            other number, a score, which ``score:`` before it makes it in any case.
        :raises RecipeError: for anything else.
        """
        if text in ("quantile", "f1max"):
            return cls(f1max=text == "f1max")
        kind, _, number = text.rpartition(":")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if kind not in ("", "score") or not math.isfinite(value):
            raise RecipeError(
                "--threshold: expected quantile, f1max, a quantile of normals between "
                f"0 and 1 as 0.99, or a score as 12.3 or score:0.5, got {text!r}"
            )
        if not kind and 0 < value < 1:
            return cls(level=value)
        return cls(score=value)


class DecisionThresholds:
    """The thresholds of a saved run, and what is known of normals' scores.

    :param run: the run's folder.
    :param description: what its ``model.json`` holds.
    :param threshold: which of them to take.
    :param warn: whether to tell of thresholds that are missing or worth little.

    >>> kept = {"f1max": {"cable": 2.5}, "quantile": {}}
    >>> description = {"categories": ["cable"], "thresholds": kept}
    >>> thresholds = DecisionThresholds(Path("run"), description, Threshold(f1max=True))
    >>> thresholds.decide("cable", 3.0)
    {'threshold': 2.5, 'anomalous': True}
    """

    def __init__(
        self,
        run: Path,
        description: Mapping[str, Any],
        threshold: Threshold,
        warn: bool = True,
    ) -> None:
        unseen = {
            *description.get("fresh", ()),
            *(
                name
                for name, held_out in description.get("density_held_out", {}).items()
                if held_out
            ),
        }
        names = list(description["categories"])
        kept = {
            kind: dict(description["thresholds"][kind])
            for kind in ("f1max", "quantile")
        }
        self.held_out = {
            name: HeldOutScores(scores)
            for name, scores in dict(description.get("held_out", {})).items()
        }
        self.trained_on = {name: name not in unseen for name in names}
        self.level: float | None = None
        if threshold.score is not None:
            self.limits = dict.fromkeys(names, threshold.score)
        elif threshold.f1max:
            self.limits = kept["f1max"]
            none = [name for name in names if self.limits.get(name) is None]
            if none and warn:
                _log.warning(
                    "%s has no f1max threshold for %s, whose test split had no defects "
                    "or was not there: no decision",
                    run,
                    ", ".join(none),
                )
        elif "held_out" in description:
            self.level = threshold.level or float(description["quantile"])
            self.limits = {
                name: scores.threshold(self.level)
                for name, scores in self.held_out.items()
            }
            missing = [name for name in names if name not in self.limits]
            if missing and warn:
                _log.warning(
                    "%s has no threshold for %s: no scores of held-out "
                    "normals compare with those it gives now; `avalanche-ad calibrate "
                    "%s NEW_NORMALS` takes one from new ones",
                    run,
                    ", ".join(missing),
                    run,
                )
            seen = [name for name in self.limits if self.trained_on[name]]
            if seen and warn:
                _log.warning(
                    "the thresholds of %s are of images that its model was fitted to "
                    "(%s), and more of other normals pass them: `avalanche-ad "
                    "calibrate %s NEW_NORMALS` takes them from new ones",
                    run,
                    ", ".join(seen),
                    run,
                )
        elif threshold.level is None:
            _log.warning(
                "%s was made by an earlier version: its threshold is a quantile of the "
                "training normals' own scores, which more of other normals pass; run "
                "the experiment again for one that they do not",
                run,
            )
            self.limits = kept["quantile"]
        else:
            raise ResultsError(
                f"{run} was made by an earlier version and keeps no scores of held-out "
                f"normals to take the quantile {threshold.level:g} of: take "
                "--threshold quantile or f1max, or run the experiment again"
            )

    def decide(self, category: str, score: float) -> dict[str, Any]:
        """Return threshold and decision, and what is known of normals' scores."""
        limit, held_out = self.limits.get(category), self.held_out.get(category)
        decision: dict[str, Any] = {
            "threshold": limit,
            "anomalous": None if limit is None else score >= limit,
        }
        if held_out is not None:
            decision["normals_above"] = round(held_out.share_above(score), 6)
            if limit is not None:
                alarms = _rounded(held_out.false_alarms(limit, self.level))
                trained_on = self.trained_on[category]
                decision["false_alarms"] = {**alarms, "trained_on": trained_on}
        return decision


def _rounded(alarms: FalseAlarms) -> dict[str, float]:
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in asdict(alarms).items()
    }
