"""Networks of a category, each of which has left some of its images out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from avalanche_ad.models.context_flow.networks import CategoryNetworks

__all__ = ["CategoryEnsemble", "fingerprints", "left_out"]

_STEP = 61
"""Every so manieth number of an image's features makes its fingerprint."""
_SHARE = 6
"""A network leaves one of so many images out."""


def fingerprints(levels: Sequence[Tensor]) -> Tensor:
    """Return a number for each image by which it is known again, (N,).

    The sum of its features' bits as integers: exact, in any order.

    :param levels: features, one (N, H, W, D) per level.

    >>> x = torch.randn(3, 4, 4, 8)
    >>> torch.equal(fingerprints([x[1:]]), fingerprints([x])[1:])
    True
    """
    rows = [level.detach().float().flatten(1)[:, ::_STEP] for level in levels]
    bits = torch.cat(rows, 1).contiguous().view(torch.int32)
    return bits.to(torch.int64).sum(1)


def left_out(marks: Tensor, copies: Tensor, networks: int) -> list[Tensor]:
    """Return the images that each network leaves out, as fingerprints (N_k,).

    A sixth of them each, none by two networks: two blocks of neighbours, since near
    copies often follow each other; an image and its copies go together. A single
    network leaves none out, nor do any of fewer than four images.

    :param marks: fingerprints of a category's images, in their order (N,).
    :param copies: which of them each is a copy of (N,), see
        :func:`~avalanche_ad.models.copies.copies_of`.
    :param networks: K, at most six.

    >>> left_out(torch.arange(12), torch.arange(12), 2)
    [tensor([0, 6]), tensor([3, 9])]
    """
    first, index = torch.unique(copies, return_inverse=True)
    count = len(first)
    place = torch.arange(count, device=marks.device)
    group = place * min(2 * _SHARE, count) // count % _SHARE
    if networks == 1 or count < 4:
        group = group - _SHARE
    group = group[index]
    return [marks[group == _SHARE * k // networks] for k in range(networks)]


class CategoryEnsemble(nn.Module):
    """Networks of one category, each trained on all images but those it leaves out.

    An image of a minibatch trains one of them, drawn anew in every step, so that they
    cost no more than one does. What they say is the mean over them; of an image that
    one of them has left out, what that one says. So there are training images whose
    scores are as new ones' are, to take thresholds from (cross-fitting).

    :param networks: K.
    :param images: the fingerprints of those that each leaves out.

    Shapes: ``images_k`` (N_k,).

    >>> marks = torch.arange(6)
    >>> parts = left_out(marks, marks, 2)
    >>> made = CategoryEnsemble([CategoryNetworks([])] * 2, parts)
    >>> made.shares(marks)[2:4]
    tensor([[0.5000, 0.5000],
            [0.0000, 1.0000]])
    """

    memory_kind = "parameters"

    def __init__(
        self, networks: Sequence[CategoryNetworks], images: Sequence[Tensor]
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        for index, own in enumerate(images):
            self.register_buffer(f"images_{index}", own)

    def __len__(self) -> int:
        return len(self.networks)

    def __iter__(self) -> Iterator[CategoryNetworks]:
        for networks in self.networks:
            assert isinstance(networks, CategoryNetworks)
            yield networks

    def _parts(self) -> list[Tensor]:
        return [self.get_buffer(f"images_{k}") for k in range(len(self))]

    @property
    def images(self) -> Tensor:
        """The fingerprints of all images that a network leaves out."""
        return torch.cat(self._parts())

    def leaves_out(self, marks: Tensor) -> Tensor:
        """Return which images each network has left out, (N, K).

        :param marks: fingerprints (N,).
        """
        return torch.stack([torch.isin(marks, own) for own in self._parts()], 1)

    def training_rows(self, marks: Tensor) -> Iterator[tuple[CategoryNetworks, Tensor]]:
        """Yield the networks that a minibatch trains, each with its rows (M,).

        An image trains one that is drawn of those that do not leave it out.

        :param marks: fingerprints of the minibatch (N,).
        """
        out = self.leaves_out(marks)
        drawn = torch.rand(out.shape).to(marks.device).masked_fill(out, -1.0).argmax(1)
        for index, networks in enumerate(self):
            if len(rows := (drawn == index).nonzero().flatten()):
                yield networks, rows

    def shares(self, marks: Tensor) -> Tensor:
        """Return the weight of each network in what is said of images, (N, K).

        :param marks: fingerprints (N,).
        """
        chosen = self.leaves_out(marks)
        chosen |= ~chosen.any(1, keepdim=True)
        return chosen / chosen.sum(1, keepdim=True)
