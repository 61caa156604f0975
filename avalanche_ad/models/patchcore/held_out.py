"""Nearest neighbours of normals in a bank that lacks the vectors of some images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from avalanche_ad.models.patchcore.neighbours import Search, nearest_squares

__all__ = ["squares_without"]


def squares_without(
    patches: Tensor,
    own: Tensor,
    bank: Tensor,
    image: Tensor,
    rests: Sequence[Tensor],
    neighbours: int = 1,
    search: Search = "torch",
) -> Iterator[Tensor]:
    """Yield squared distances to the nearest vectors of some images, never one's own.

    Every distance is computed once, whatever the number of parts. An image for which no
    vector is left is held against all.

    :param patches: of N images, (N, P, D).
    :param own: index by which the bank's vectors name each of these images, (N,).
    :param bank: (M, D).
    :param image: of each vector, (M,), -1 for one that is never held out.
    :param rests: the images whose vectors are not held out, for each part.
    :param neighbours: k.
    :param search: see :func:`nearest_squares`.
    :return: (N, P, k) for each part; infinity in the place of those that are not there.
    """
    kept = torch.stack(
        [torch.isin(image, rest.to(image)) | (image < 0) for rest in rests]
    )
    patterns, group = torch.unique(kept, dim=1, return_inverse=True)
    count = patterns.shape[1]
    # one row more, of nothing, so that there is always one
    found = patches.new_full((count + 1, *patches.shape[:2], neighbours), torch.inf)
    for row, x in enumerate(patches):
        others = image != own[row]
        for index in range(count):
            vectors = bank[(group == index) & others]
            found[index, row] = nearest_squares(x, vectors, neighbours, search)
    for chosen in patterns:
        used = torch.cat([chosen, chosen.new_ones(1)])
        every = found[used].movedim(0, 2).flatten(2)
        best = every.topk(neighbours, dim=2, largest=False, sorted=True).values
        for row in best[:, 0, 0].isinf().nonzero().flatten():
            best[row] = nearest_squares(patches[row], bank, neighbours, search)
        yield best
