"""The expansion effect: what adding centres alone does to the scores."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avalanche_ad.evaluation.functional import binary_metrics, mean_defined
from avalanche_ad.models.base import evaluating
from avalanche_ad.models.flow_gmm import FlowGMM
from avalanche_ad.models.scoring import AnomalyScores, ScoreKind

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
    groups = [y == category for category in np.unique(y)]
    kinds = get_args(ScoreKind)
    sides = [_scores(candidate, held, kinds) for candidate in (model, expanded)]
    found = []
    for kind in kinds:
        image, pixel, normal, anomaly = [], [], [], []
        for side in sides:
            scores, maps = side[kind]
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


def _scores(
    model: FlowGMM, batches: Iterable[tuple[Tensor, ...]], kinds: Sequence[ScoreKind]
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]]:
    """Return the image scores and score maps of every kind; one forward pass."""
    parts: dict[str, list[AnomalyScores]] = {kind: [] for kind in kinds}
    with evaluating(model):
        for x, _, _, mask in batches:
            output, size = model(x), (mask.shape[-2], mask.shape[-1])
            for kind in kinds:
                parts[kind].append(model.score(output, size, kind=kind))
    joined = {kind: AnomalyScores.concatenate(held) for kind, held in parts.items()}
    return {
        kind: (scores.image.double().cpu().numpy(), scores.maps.cpu().numpy())
        for kind, scores in joined.items()
    }
