"""How a model scores test images, category by category, before any mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avalanche_ad.evaluation.detection import binary_metrics, fpr_at_tpr
from avalanche_ad.evaluation.measuring import known_masks
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.evaluating import evaluating
from avalanche_ad.models.scoring import AnomalyScores

__all__ = ["CategoryEvaluation", "TestBatch", "evaluate_categories"]

TestBatch = Sequence[Tensor]
"""(x, category, is_anomaly, mask, …) of test images."""


@dataclass(frozen=True)
class CategoryEvaluation:
    """One kind of score on the test images of one category.

    :param category: category index.
    :param kind: ``"likelihood"``, ``"uncertainty"`` or ``"product"``.
    :param image_auroc: ``None`` where a class is missing, as the next two.
    :param pixel_auroc: over all pixels of the images whose masks are known.
    :param fpr95: share of the normal images at or above the score that 95 % of the
        anomalous ones reach.
    :param accuracy: share of the images whose category is inferred right.
    :param normals: image scores of the normal images.
    :param anomalies: image scores of the anomalous ones.

    >>> scores = np.array([0.1, 0.2]), np.array([0.9])
    >>> one = CategoryEvaluation(0, "likelihood", 1.0, None, 0.0, 1.0, *scores)
    >>> bool(one.normals.max() < one.anomalies.min())
    True
    """

    category: int
    kind: str
    image_auroc: float | None
    pixel_auroc: float | None
    fpr95: float | None
    accuracy: float
    normals: npt.NDArray[np.float64]
    anomalies: npt.NDArray[np.float64]


def evaluate_categories(
    model: AnomalyModel,
    batches: Iterable[TestBatch],
    kinds: Sequence[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    oracle: bool = False,
) -> list[CategoryEvaluation]:
    """Score test images by every kind of score, with one forward pass.

    :param model: what scores them; it is left as it is.
    :param batches: test minibatches.
    :param kinds: kinds of score, the model's own by default.
    :param device: where the model is.
    :param oracle: whether the score is given the true category.
    :return: for every kind one evaluation per category, ascending.
    """
    kinds = kinds or (model.score_kind,)
    parts: dict[str, list[AnomalyScores]] = {kind: [] for kind in kinds}
    truth: list[list[Tensor]] = [[], [], []]
    with evaluating(model):
        for x, y, flags, mask, *_ in batches:
            output, size = model(x.to(device)), (mask.shape[-2], mask.shape[-1])
            given = y.to(device) if oracle else None
            for kind in kinds:
                parts[kind].append(model.score(output, size, given, kind))
            for kept, value in zip(truth, (y, flags, mask), strict=True):
                kept.append(value)
    if not truth[0]:
        return []
    category, defective, masks = (torch.cat(kept).cpu().numpy() for kept in truth)
    anomalous, evaluated = defective.astype(bool), []
    known = known_masks(torch.cat(truth[2])).cpu().numpy()
    for kind in kinds:
        scores = AnomalyScores.concatenate(parts[kind])
        image = scores.image.double().cpu().numpy()
        maps, inferred = scores.maps.cpu().numpy(), scores.category.cpu().numpy()
        for number in np.unique(category):
            own = category == number
            marked = own & known
            # with anomalous images, but no mask of any, there is nothing to hold to
            has_pixels = known[own].all() or (marked & anomalous).any()
            evaluated.append(
                CategoryEvaluation(
                    int(number),
                    kind,
                    binary_metrics(image[own], anomalous[own]).auroc,
                    binary_metrics(maps[marked].ravel(), masks[marked].ravel()).auroc
                    if has_pixels
                    else None,
                    fpr_at_tpr(image[own], anomalous[own]),
                    float((inferred[own] == number).mean()),
                    image[own & ~anomalous],
                    image[own & anomalous],
                )
            )
    return evaluated
