"""Scores of training normals, each scored by a model without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.copies import copies_of
from avalanche_ad.models.evaluating import evaluating

if TYPE_CHECKING:
    from avalanche_ad.models.anomaly_model import AnomalyModel

__all__ = ["held_out_scores"]


@torch.no_grad()
def held_out_scores(
    model: AnomalyModel,
    category: int,
    x: Tensor,
    mask_size: tuple[int, int],
    *,
    folds: int = 16,
    images: int = 32,
) -> Tensor:
    """Return image scores of a category's normals, each scored without it.

    The images are parted into folds of neighbours, so that near copies, which often
    follow each other, are held out together; an image and its copies
    (:func:`~avalanche_ad.models.copies.copies_of`) always are. For each fold the
    category's constants (``calibrate``) are taken from the other folds alone, and so is
    its density as far as the model can fit it without training (``levels_without``).
    The model is left as it was.

    :param model: any.
    :param category: a category that has been learned.
    :param x: features (N, layout.size) of its training normals, copies
        included, as the density was fitted to; n of them no copies, at least 2.
    :param mask_size: (H, W) of the score maps.
    :param folds: how many; n at most.
    :param images: of how many images the constants are taken, as for the model's own:
        spread over those there are, or where they are fewer each taken again.
    :return: of those that the model can score as new (``held_out_rows``), of the
        category given: none is inferred. Of an image and its copies the first.
    :raises TrainingError: for fewer than two images.
    """
    first, group = torch.unique(copies_of(x).cpu(), return_inverse=True)
    count = len(first)
    if count < 2:
        raise TrainingError(
            f"category {category} has {count} training image: with fewer than two "
            "none can be held out to take a threshold from"
        )
    score = model.score_of()
    fold = torch.arange(count) * min(folds, count) // count
    parts = []
    for index in range(min(folds, count)):
        rest = (fold[group] != index).nonzero().flatten()
        drawn = torch.arange(images) * max(len(rest), images) // images % len(rest)
        parts.append((rest, rest[drawn], first[fold == index]))
    scores = []
    with evaluating(model), model.constants_kept():
        scored = [(rest, torch.cat([own, held])) for rest, own, held in parts]
        found = model.levels_without(category, x, scored, score.maps)
        for (_, own, held), levels in zip(parts, found, strict=True):
            constants = {
                name: [level[: len(own)] for level in of_map]
                for name, of_map in levels.items()
            }
            model.put_constants(category, constants)
            rest_of = {
                name: [level[len(own) :] for level in of_map]
                for name, of_map in levels.items()
            }
            chosen = torch.full((len(held),), category, device=x.device)
            maps = model.score_maps(score, rest_of, chosen, mask_size)
            scores.append(score.image(maps))
    return torch.cat(scores)[model.held_out_rows(category, x[first])]
