"""A replay memory that holds copies, so that its size in bytes is what it costs."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor
from torch.utils.data import Dataset

from avalanche_ad.errors import TrainingError, counted
from avalanche_ad.registry.options import Count

__all__ = ["MaterializedBuffer"]


class _Copies(Dataset[tuple[Tensor, int | Tensor]]):
    """Images of one category: copies of their features, in the buffer's precision.

    :param x: features (N, ...) as kept.
    :param task: task labels (N,).
    :param weight: what each drew in the reservoir, (N,), descending.
    :param label: their category, of the type that the data set's items have.
    :param dtype: type of number that an item has.
    """

    def __init__(
        self,
        x: Tensor,
        task: Tensor,
        weight: Tensor,
        label: int | Tensor,
        dtype: torch.dtype,
    ) -> None:
        self.x = x
        self.task = task
        self.weight = weight
        self.label = label
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        return self.x[index].to(self.dtype), self.label

    @property
    def nbytes(self) -> int:
        return self.x.nbytes + self.task.nbytes + self.weight.nbytes

    def first(self, count: int) -> _Copies:
        """Return the first so many alone, without the memory of the rest."""
        if count >= len(self):
            return self
        return _Copies(
            self.x[:count].clone(),
            self.task[:count].clone(),
            self.weight[:count].clone(),
            self.label,
            self.dtype,
        )

    def joined(self, other: _Copies) -> _Copies:
        """Return both together."""
        weight, order = torch.cat([self.weight, other.weight]).sort(descending=True)
        return _Copies(
            torch.cat([self.x, other.x])[order],
            torch.cat([self.task, other.task])[order],
            weight,
            self.label,
            self.dtype,
        )


class MaterializedBuffer(ExemplarsBuffer):  # type: ignore[misc]
    """A class-balanced memory of copied images with a budget in bytes.

    Avalanche's buffers hold indices into the data sets they were filled from, so the
    whole of every old data set stays reachable and the memory costs what all of them
    cost. This one copies what it keeps and lets go of the data sets.

    Of every category the same number of images is kept, drawn by reservoir sampling:
    the largest number for which neither limit is passed,

        n = min(max_size, ⌊max_mb·10⁶ / bytes of an image⌋) / categories,

    with a remainder that goes to the categories seen first. Items come back as the data
    set's own, (x, y, t), in its type of number.

    :param max_size: most images, as other policies count.
    :param max_mb: most megabytes (10⁶ bytes) of all that is kept per image: its
        features, its task label and what it drew in the reservoir.
    :param dtype: type of number of the copies, ``"float16"`` or ``"float32"``.
    :raises TrainingError: when a limit is not above zero, or the type is another.

    >>> from avalanche_ad import anomaly_benchmark
    >>> from avalanche_ad.datasets import SyntheticAD
    >>> counts = {"train_images": 2, "test_normals": 1, "test_anomalies": 1}
    >>> data = SyntheticAD(64, categories=["bolt", "gear"], **counts)
    >>> stream = anomaly_benchmark(data, n_experiences=2, image_size=32)
    >>> buffer = MaterializedBuffer(max_size=3, max_mb=1.0)
    >>> for experience in stream.train_stream:
    ...     buffer.update_from_dataset(experience.dataset)
    ...     print(len(buffer.buffer), "images,", buffer.nbytes, "bytes")
    2 images, 12312 bytes
    3 images, 18468 bytes
    """

    memory_kind = "exemplars"

    def __init__(self, max_size: Count, max_mb: float, dtype: str = "float16") -> None:
        if dtype not in ("float16", "float32"):
            raise TrainingError(
                "MaterializedBuffer: expected dtype 'float16' or 'float32', got "
                f"{dtype!r}"
            )
        # written so that NaN is refused as well
        if not (max_size > 0 and 0 < max_mb < math.inf):
            raise TrainingError(
                "MaterializedBuffer: expected max_size and max_mb above 0 and finite, "
                f"got {counted(max_size, 'image')} and {max_mb} MB: give it room for "
                "an image of each category"
            )
        super().__init__(max_size)
        self.max_mb = max_mb
        self.dtype = dtype
        self._groups: dict[int, _Copies] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept of images."""
        return sum(group.nbytes for group in self._groups.values())

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Take in an experience's data set."""
        self.update_from_dataset(exp.dataset)

    def update_from_dataset(self, new_data: AvalancheDataset[Any]) -> None:
        """Take in a data set of items (x, y, ..., t).

        :param new_data: its items may be read once and are copied.
        :raises TrainingError: when the budget has no room for an image of each
            category.
        """
        rows: dict[int, list[int]] = defaultdict(list)
        for row, target in enumerate(new_data.targets):
            rows[int(target)].append(row)
        if not rows:
            return
        categories = list(dict.fromkeys([*self._groups, *rows]))
        sizes = self._sizes(categories, new_data[0][0])
        for category, own in rows.items():
            weight, order = torch.rand(len(own)).sort(descending=True)
            # only these can win a place, so only these are read
            drawn = order[: sizes[category]]
            items = [new_data[own[index]] for index in drawn.tolist()]
            label = items[0][1]
            new = _Copies(
                torch.stack([item[0].to(getattr(torch, self.dtype)) for item in items]),
                torch.tensor([int(item[-1]) for item in items]),
                weight[: len(drawn)].clone(),
                label.clone() if isinstance(label, Tensor) else label,
                items[0][0].dtype,
            )
            old = self._groups.get(category)
            self._groups[category] = old.joined(new) if old else new
        self._shrink(sizes)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the largest number of images."""
        self.max_size = new_size
        if self._groups:
            group = next(iter(self._groups.values()))
            self._shrink(self._sizes(list(self._groups), group.x[0]))

    def _sizes(self, categories: list[int], x: Tensor) -> dict[int, int]:
        """Return how many images each category may keep."""
        number = torch.empty(0, dtype=getattr(torch, self.dtype)).element_size()
        # task label and weight beside the features
        per_image = x.numel() * number + 8 + 4
        room = min(self.max_size, int(self.max_mb * 1e6 / per_image))
        size, left = divmod(room, len(categories))
        if size < 1:
            raise TrainingError(
                f"the replay memory has room for {counted(room, 'image')} of "
                f"{per_image / 1e6:g} MB, and there must be one for each of "
                f"{counted(len(categories), 'category')}: raise max_mb "
                f"({self.max_mb:g}) or max_size ({self.max_size})"
            )
        return {
            category: size + (index < left) for index, category in enumerate(categories)
        }

    def _shrink(self, sizes: dict[int, int]) -> None:
        for category, size in sizes.items():
            self._groups[category] = self._groups[category].first(size)
        self.buffer = _as_dataset(list(self._groups.values()))


def _as_dataset(groups: list[_Copies]) -> AvalancheDataset[Any]:
    targets = [int(group.label) for group in groups for _ in range(len(group))]
    tasks = [int(task) for group in groups for task in group.task]
    return TaskAwareSupervisedClassificationDataset(
        groups,
        data_attributes=[
            DataAttribute(targets, "targets"),
            DataAttribute(tasks, "targets_task_labels", use_in_getitem=True),
        ],
    )
