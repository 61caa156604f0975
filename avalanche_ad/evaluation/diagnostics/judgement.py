"""How a model judges test images, category by category, before anything is averaged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avalanche_ad.evaluation.functional import binary_metrics, fpr_at_tpr
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.density_model import ScoreKind
from avalanche_ad.models.evaluating import evaluating
from avalanche_ad.models.scoring import AnomalyScores

__all__ = ["Judgement", "TestBatch", "judge"]

TestBatch = Sequence[Tensor]
"""(x, category, is_anomaly, mask, …) of test images."""


@dataclass(frozen=True)
class Judgement:
    """One kind of score on the test images of one category.

    :param category: category index.
    :param kind: ``"likelihood"``, ``"uncertainty"`` or ``"product"``.
    :param image_auroc: ``None`` where a class is missing, as the next two.
    :param pixel_auroc: over all pixels of the category.
    :param fpr95: share of the normal images at or above the score that 95 % of the
        anomalous ones reach.
    :param accuracy: share of the images whose category is inferred right.
    :param normals: image scores of the normal images.
    :param anomalies: image scores of the anomalous ones.
    """

    category: int
    kind: ScoreKind
    image_auroc: float | None
    pixel_auroc: float | None
    fpr95: float | None
    accuracy: float
    normals: npt.NDArray[np.float64]
    anomalies: npt.NDArray[np.float64]


def judge(
    model: AnomalyModel,
    batches: Iterable[TestBatch],
    kinds: Sequence[ScoreKind] | None = None,
    *,
    device: torch.device | str = "cpu",
    oracle: bool = False,
) -> list[Judgement]:
    """Score test images by every kind of score, with one forward pass.

    :param model: what judges; it is left as it is.
    :param batches: test minibatches.
    :param kinds: kinds of score, the model's own by default.
    :param device: where the model is.
    :param oracle: whether the score is given the true category.
    :return: for every kind one judgement per category, ascending.
    """
    kinds = kinds or (model.score_kind,)
    parts: dict[ScoreKind, list[AnomalyScores]] = {kind: [] for kind in kinds}
    truth: list[list[Tensor]] = [[], [], []]
    with evaluating(model):
        for x, y, flags, mask, *_ in batches:
            output, size = model(x.to(device)), (mask.shape[-2], mask.shape[-1])
            given = y.to(device) if oracle else None
            for kind in kinds:
                parts[kind].append(model.score(output, size, given, kind))
            for kept, value in zip(truth, (y, flags, mask), strict=True):
                kept.append(value)
    category, defective, masks = (torch.cat(kept).cpu().numpy() for kept in truth)
    anomalous, found = defective.astype(bool), []
    for kind in kinds:
        scores = AnomalyScores.concatenate(parts[kind])
        image = scores.image.double().cpu().numpy()
        maps, inferred = scores.maps.cpu().numpy(), scores.category.cpu().numpy()
        for number in np.unique(category):
            own = category == number
            found.append(
                Judgement(
                    int(number),
                    kind,
                    binary_metrics(image[own], anomalous[own]).auroc,
                    binary_metrics(maps[own].ravel(), masks[own].ravel()).auroc,
                    fpr_at_tpr(image[own], anomalous[own]),
                    float((inferred[own] == number).mean()),
                    image[own & ~anomalous],
                    image[own & anomalous],
                )
            )
    return found
