"""Thresholds of a finished run from normal images that it has never seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from avalanche_ad.datasets.disk import image_fingerprint
from avalanche_ad.errors import AvalancheADError, DatasetError, counted, writing
from avalanche_ad.experiments.prediction import predict_images
from avalanche_ad.experiments.results import write_json
from avalanche_ad.models.thresholds import (
    FalseAlarms,
    HeldOutScores,
    images_needed,
)

__all__ = ["FINGERPRINT", "NewThreshold", "calibrate_run"]

FINGERPRINT = 16
"""Hexadecimal digits that a run keeps of each training image."""


@dataclass(frozen=True)
class NewThreshold:
    """What new normals made of a category's threshold.

    :param category: its name.
    :param before: the threshold there was, ``None`` where there was none.
    :param after: that of the new normals.
    :param taken: whether it takes the other's place.
    :param above_before: share of the new normals that reach the threshold there was.
    :param alarms: share of other normals that will reach the new one, and of how many
        images that is known.

    >>> alarms = FalseAlarms(expected=0.05, low=0.01, high=0.13, images=39)
    >>> new = NewThreshold("bolt", 2.5, 2.0, True, above_before=0.0, alarms=alarms)
    >>> f"{new.before} to {new.after}, {new.alarms.expected:.0%} false alarms"
    '2.5 to 2.0, 5% false alarms'
    """

    category: str
    before: float | None
    after: float
    taken: bool
    above_before: float | None
    alarms: FalseAlarms


def _refuse_trained(run: Path, images: Sequence[Path]) -> None:
    """Refuse images that a run was trained on, as far as it knows them."""
    try:
        description = json.loads((run / "model.json").read_text("utf-8"))
        kept = description.get("training_images", {}).values()
    except (OSError, ValueError, AttributeError):
        return  # told by whoever loads the model
    trained, found = {one for images_of in kept for one in images_of}, []
    for path in images:
        with suppress(DatasetError):
            if image_fingerprint(path)[:FINGERPRINT] in trained:
                found.append(path)
    if found:
        raise AvalancheADError(
            f"{counted(len(found), 'image')} of {len(images)} {run} was trained on "
            f"(such as {found[0]}), and their scores say nothing of new ones: give "
            "normal images that it has not seen"
        )


def calibrate_run(
    run: Path, normals: Sequence[Path], *, device: torch.device | None = None
) -> tuple[list[NewThreshold], list[str]]:
    """Take the thresholds of a saved run anew, from normals it was not trained on.

    Whatever the model is and however far its flow has moved since a category was
    learned: the scores are those that :func:`predict_images` gives now, by the category
    it infers. The categories found among the images get new thresholds in the run's
    ``model.json``, the others keep theirs, and so do those with a threshold of which
    there are too few images here for one of the run's quantile (19 for 0.95): strays,
    or images taken for another category's. No image is kept.

    :param run: folder of a finished run.
    :param normals: files of normal images, at best a hundred of each category.
    :param device: where to compute.
    :return: a row for each category found, and a line for each image that could not be
        read.
    :raises AvalancheADError: when the run cannot be read or written, no image can be
        read, or one is of those it was trained on.
    """
    _refuse_trained(run, normals)
    scores: dict[str, list[float]] = {}
    limits: dict[str, float | None] = {}
    unread = []
    for line in predict_images(run, normals, device=device, warn=False):
        if "error" in line:
            unread.append(str(line["error"]))
            continue
        scores.setdefault(line["category"], []).append(line["score"])
        limits[line["category"]] = line["threshold"]
    if not scores:
        raise AvalancheADError(
            f"none of {counted(len(normals), 'image')} can be read, so there is no "
            f"threshold to take: {unread[0]}"
        )
    path = run / "model.json"
    description = json.loads(path.read_text("utf-8"))
    level, rows = float(description["quantile"]), []
    for category, found in sorted(scores.items()):
        held_out, before = HeldOutScores(found), limits[category]
        after = held_out.threshold(level)
        taken = before is None or len(found) >= images_needed(level)
        rows.append(
            NewThreshold(
                category,
                before,
                after,
                taken,
                None
                if before is None
                else sum(score >= before for score in found) / len(found),
                held_out.false_alarms(after, level),
            )
        )
        if not taken:
            continue
        description.setdefault("held_out", {})[category] = held_out.scores
        description["thresholds"]["quantile"][category] = after
        description["fresh"] = sorted({*description.get("fresh", ()), category})
    with writing(run, "the thresholds"):
        write_json(path, description)
    return rows, unread
