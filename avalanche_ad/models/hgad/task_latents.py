"""Latents of a minibatch under the subsets of several tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.hgad.latents import Latents

__all__ = ["by_task", "in_order"]


@dataclass(frozen=True)
class TaskLatents:
    """Dense latents of a minibatch, one set for each task's subset.

    :param tasks: latents of all N images, with the mixtures of the task's categories.
    :param category: the category inferred for each image (N,), by which it is scored
        where no other is given.
    """

    tasks: Sequence[Latents]
    category: Tensor


def _tasks(latents: object) -> Sequence[Latents]:
    """Return the latents of every task's subset."""
    if isinstance(latents, Latents):
        return [latents]
    assert isinstance(latents, TaskLatents)
    return latents.tasks


def by_task(
    latents: object, category: Tensor
) -> Iterator[tuple[Tensor, Latents, Tensor]]:
    """Yield for each task its images' rows, their latents and their categories."""
    tasks = _tasks(latents)
    known = torch.cat([own.known for own in tasks]) if tasks else category[:0]
    if unknown := sorted(set(category.tolist()) - set(known.tolist())):
        raise TrainingError(
            f"categories {unknown} have not been learned, so no task's subset can "
            "score them: evaluate on the experiences seen so far"
        )
    for own in tasks:
        rows = torch.isin(category, own.known).nonzero().flatten()
        if len(rows):
            levels = [
                replace(
                    level,
                    z=level.z[rows],
                    log_det=level.log_det[rows],
                )
                for level in own.levels
            ]
            yield rows, replace(own, levels=levels), category[rows]


def in_order(parts: Sequence[tuple[Tensor, list[Tensor]]]) -> list[Tensor]:
    """Join what the tasks returned for their rows, in the order of all rows."""
    back = torch.cat([rows for rows, _ in parts]).argsort()
    tensors = zip(*(tensors for _, tensors in parts), strict=True)
    return [torch.cat(tensor)[back] for tensor in tensors]
