"""Feature vectors of each category, as many as it may keep."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.category_table import CategoryTable
from avalanche_ad.models.loading import replaced

__all__ = ["MemoryBank"]


class MemoryBank(CategoryTable):
    """Vectors of all categories, one category after the other, in half precision.

    A category's stand in the order of their worth: it gives up the last ones first.

    :param channels: D.

    Shapes: ``vectors`` (M, D); ``counts`` (C,), of each category.

    >>> bank = MemoryBank(2)
    >>> bank.put(1, torch.ones(3, 2))
    >>> bank.put(0, torch.zeros(2, 2))
    >>> bank.shrink(2)
    >>> bank.of(1).tolist(), bank.counts.tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [2, 2])
    """

    memory_kind = "exemplars"  # parts of images
    counts: Tensor
    vectors: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.add_table("counts", dtype=torch.long)
        self.register_buffer("vectors", torch.zeros(0, channels, dtype=torch.float16))

    def of(self, category: int) -> Tensor:
        """Return a category's vectors (M_c, D)."""
        return torch.split(self.vectors, self.counts.tolist())[category]

    @torch.no_grad()
    def put(self, category: int, vectors: Tensor) -> None:
        """Set a category's vectors.

        :param category: its index.
        :param vectors: (M_c, D), the most needed first.
        :raises TrainingError: when half precision has no room for one.
        """
        kept = vectors.to(self.vectors)
        if not bool(kept.isfinite().all()):
            raise TrainingError(
                f"category {category} has features up to {float(vectors.abs().max()):g}"
                f", expected at most {torch.finfo(kept.dtype).max:g}, which the memory "
                "bank can hold: take a backbone whose features are whitened"
            )
        self.resize(category + 1)
        parts = list(torch.split(self.vectors, self.counts.tolist()))
        parts[category] = kept
        self.vectors = torch.cat(parts)
        self.set_rows(category, counts=torch.tensor(len(kept)))

    @torch.no_grad()
    def shrink(self, count: int) -> None:
        """Let each category keep its first vectors only.

        :param count: of how many.
        """
        parts = torch.split(self.vectors, self.counts.tolist())
        self.vectors = torch.cat([self.vectors[:0], *(part[:count] for part in parts)])
        self.counts = self.counts.clamp(max=count)

    def make_room(self, state: Mapping[str, Tensor]) -> None:
        """Take the number of vectors that a state has."""
        super().make_room(state)
        new = state.get("vectors")
        if isinstance(new, Tensor) and new.dim() and len(new) != len(self.vectors):
            shape = torch.Size([len(new), *self.vectors.shape[1:]])
            replaced(self, "vectors", shape)

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse a state whose counts are not of its vectors."""
        super().check_state(state)
        counts = state["counts"]
        if bool((counts < 0).any()) or int(counts.sum()) != len(state["vectors"]):
            raise ValueError(
                f"{len(state['vectors'])} vectors, counted as {counts.tolist()}"
            )
        if not torch.equal(counts > 0, state["known"].bool()):
            raise ValueError("categories known are not those that have vectors")
