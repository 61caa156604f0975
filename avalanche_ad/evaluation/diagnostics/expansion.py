"""The expansion effect: what adding centres alone does to the scores."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from avalanche_ad.evaluation.functional import binary_metrics, mean_defined
from avalanche_ad.models.flow_gmm import FlowGMM
from avalanche_ad.models.scoring import ScoreKind

__all__ = ["Expansion", "expansion_effect"]

TestBatch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Expansion:
    """One score before and after new centres came, the flow untouched.

    :param kind: ``"likelihood"``, ``"uncertainty"`` or ``"product"``.
    :param image_auroc: (before, after), mean over categories.
    :param pixel_auroc: (before, after), mean over categories.
    :param normal_score: mean image score of normal images (before, after).
    :param anomaly_score: mean image score of anomalous images (before, after).
    """

    kind: str
    image_auroc: tuple[float | None, float | None]
    pixel_auroc: tuple[float | None, float | None]
    normal_score: tuple[float, float]
    anomaly_score: tuple[float, float]


def expansion_effect(
    model: FlowGMM,
    batches: Iterable[TestBatch],
    new_categories: Sequence[int],
    device: torch.device | str = "cpu",
) -> list[Expansion]:
    """Score a test set before and after adding the centres of new categories.

    The given model is left as it is; the centres are added to a copy. Scores are
    task-agnostic.

    :param model: a model trained on the categories of the test set.
    :param batches: test minibatches (x, y, is_anomaly, mask, …).
    :param new_categories: indices of categories the model does not know.
    :param device: where the model is.
    :return: one entry per kind of score.
    """
    held = [tuple(part.to(device) for part in batch[:4]) for batch in batches]
    expanded = copy.deepcopy(model)
    expanded.add_categories(new_categories)
    y = torch.cat([batch[1] for batch in held]).cpu().numpy()
    anomalous = torch.cat([batch[2] for batch in held]).bool().cpu().numpy()
    masks = torch.cat([batch[3] for batch in held]).cpu().numpy()
    found = []
    for kind in get_args(ScoreKind):
        image: list[float | None] = []
        pixel: list[float | None] = []
        normal: list[float] = []
        anomaly: list[float] = []
        for candidate in (model, expanded):
            candidate.eval()
            with torch.no_grad():
                parts = [
                    candidate.score(
                        candidate(x), (mask.shape[-2], mask.shape[-1]), kind=kind
                    )
                    for x, _, _, mask in held
                ]
            scores = torch.cat([part.image for part in parts]).double().cpu().numpy()
            maps = torch.cat([part.maps for part in parts]).cpu().numpy()
            groups = [y == category for category in np.unique(y)]
            image.append(
                mean_defined(
                    binary_metrics(scores[group], anomalous[group]).auroc
                    for group in groups
                )
            )
            pixel.append(
                mean_defined(
                    binary_metrics(maps[group].ravel(), masks[group].ravel()).auroc
                    for group in groups
                )
            )
            normal.append(float(scores[~anomalous].mean()))
            anomaly.append(float(scores[anomalous].mean()))
        found.append(
            Expansion(
                kind,
                (image[0], image[1]),
                (pixel[0], pixel[1]),
                (normal[0], normal[1]),
                (anomaly[0], anomaly[1]),
            )
        )
    return found
