"""Thresholds of a finished run from normal images that it has never seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from avalanche_ad.errors import AvalancheADError, counted, writing
from avalanche_ad.experiments.prediction import predict_images
from avalanche_ad.experiments.results import write_json
from avalanche_ad.models.thresholds import FalseAlarms, HeldOutScores

__all__ = ["NewThreshold", "calibrate_run"]


@dataclass(frozen=True)
class NewThreshold:
    """What new normals made of a category's threshold.

    :param category: its name.
    :param before: the threshold there was, ``None`` where there was none.
    :param after: that of the new normals.
    :param above_before: share of the new normals that reach the threshold there was.
    :param alarms: share of other normals that will reach the new one, and of how many
        images that is known.
    """

    category: str
    before: float | None
    after: float
    above_before: float | None
    alarms: FalseAlarms


def calibrate_run(
    run: Path, normals: Sequence[Path], *, device: torch.device | None = None
) -> tuple[list[NewThreshold], list[str]]:
    """Take the thresholds of a saved run anew, from normals it was not trained on.

    Whatever the model is and however far its flow has moved since a category was
    learned: the scores are those that :func:`predict_images` gives now, by the category
    it infers. The categories found among the images get new thresholds in the run's
    ``model.json``, the others keep theirs; no image is kept. Images of the training
    split would bring back the promise that is broken: give others.

    :param run: folder of a finished run.
    :param normals: files of normal images, at best a hundred of each category.
    :param device: where to compute.
    :return: a row for each category found, and a line for each image that could not be
        read.
    :raises AvalancheADError: when the run cannot be read or written, or no image can.
    """
    scores: dict[str, list[float]] = {}
    limits: dict[str, float | None] = {}
    unread = []
    for line in predict_images(run, normals, device=device):
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
        rows.append(
            NewThreshold(
                category,
                before,
                after,
                None
                if before is None
                else sum(score >= before for score in found) / len(found),
                held_out.false_alarms(after, level),
            )
        )
        description.setdefault("held_out", {})[category] = held_out.scores
        description["thresholds"]["quantile"][category] = after
    fresh = {*description.get("fresh", ()), *scores}
    description["fresh"] = sorted(fresh)
    with writing(run, "the thresholds"):
        write_json(path, description)
    return rows, unread
