"""The memory of copies keeps to its bytes and lets go of the data sets."""

import gc
import math
import weakref
from collections import Counter

import dill
import pytest
import torch
from avalanche.benchmarks.utils import (
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.training.plugins import ReplayPlugin
from torch.utils.data import DataLoader, Dataset

from avalanche_ad.errors import TrainingError
from avalanche_ad.training.storage import MaterializedBuffer

SIZE = 50
PER_IMAGE = SIZE * 2 + 8 + 4  # features, task label, weight


class Source(Dataset):
    """Images whose features say which they are."""

    def __init__(self, targets, first):
        self.targets = targets
        self.first = first
        self.read = 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.read += 1
        return torch.full((SIZE,), float(self.first + index)), self.targets[index]


def dataset(categories, count, first=0, task=0):
    targets = [category for category in categories for _ in range(count)]
    source = Source(targets, first)
    made = TaskAwareSupervisedClassificationDataset(
        [source],
        data_attributes=[
            DataAttribute(targets, "targets"),
            DataAttribute(
                [task] * len(targets), "targets_task_labels", use_in_getitem=True
            ),
        ],
    )
    return made, source


def counts(buffer):
    return Counter(int(y) for _, y, _ in buffer.buffer)


def test_items_come_back_as_the_data_sets_own():
    data, _ = dataset([3, 5], 4, first=10, task=2)
    buffer = MaterializedBuffer(max_size=8, max_mb=1.0)
    buffer.update_from_dataset(data)
    known = {float(x[0]): (x, y, t) for x, y, t in data}
    assert len(buffer.buffer) == 8
    for x, y, t in buffer.buffer:
        ours, category, task = known.pop(float(x[0]))
        assert x.dtype == torch.float32
        assert torch.equal(x, ours)
        assert (int(y), int(t)) == (int(category), int(task)) == (int(category), 2)
    assert not known
    x, y, t = next(iter(DataLoader(buffer.buffer, batch_size=3)))
    assert (x.shape, y.dtype, t.dtype) == ((3, SIZE), torch.int64, torch.int64)


@pytest.mark.parametrize("room", [6, 7, 11])
def test_bytes_are_within_the_budget_and_it_is_used(room):
    budget = (room * PER_IMAGE + PER_IMAGE - 1) / 1e6
    buffer = MaterializedBuffer(max_size=100, max_mb=budget)
    for step, categories in enumerate([(0, 1), (2,), (0, 3)]):
        buffer.update_from_dataset(dataset(categories, 20, first=100 * step)[0])
        assert buffer.nbytes == room * PER_IMAGE <= budget * 1e6
        assert len(buffer.buffer) == room
        sizes = counts(buffer).values()
        assert max(sizes) - min(sizes) <= 1
        # nothing of what was dropped stays in the storages
        for group in buffer._groups.values():
            for tensor in (group.x, group.task, group.weight):
                assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_the_number_of_images_is_a_limit_too():
    buffer = MaterializedBuffer(max_size=5, max_mb=1.0)
    buffer.update_from_dataset(dataset([0, 1], 20)[0])
    assert counts(buffer) == {0: 3, 1: 2}
    buffer.resize(None, 2)
    assert counts(buffer) == {0: 1, 1: 1}
    assert buffer.max_size == 2


def test_only_what_can_win_a_place_is_read():
    data, source = dataset([0, 1], 100)
    buffer = MaterializedBuffer(max_size=6, max_mb=1.0)
    buffer.update_from_dataset(data)
    assert source.read <= 7  # and one to see how large an image is


def test_every_image_of_a_category_has_the_same_chance():
    torch.manual_seed(0)
    kept = Counter()
    for _ in range(400):
        buffer = MaterializedBuffer(max_size=2, max_mb=1.0)
        for step in range(4):
            buffer.update_from_dataset(dataset([0], 2, first=2 * step)[0])
        kept.update(float(x[0]) for x, _, _ in buffer.buffer)
    assert set(kept) == set(range(8))
    # 100 expected, a standard deviation of 8.7
    assert all(abs(count - 100) < 35 for count in kept.values())


def test_the_data_set_may_go():
    data, source = dataset([0, 1], 10)
    watched = weakref.ref(source)
    buffer = MaterializedBuffer(max_size=4, max_mb=1.0)
    buffer.update_from_dataset(data)
    before = [float(x[0]) for x, _, _ in buffer.buffer]
    del data, source
    gc.collect()
    assert watched() is None
    assert [float(x[0]) for x, _, _ in buffer.buffer] == before


def test_it_survives_pickling():
    buffer = MaterializedBuffer(max_size=4, max_mb=1.0)
    buffer.update_from_dataset(dataset([0, 1], 10)[0])
    twin = dill.loads(dill.dumps(buffer))
    assert twin.nbytes == buffer.nbytes
    for one, other in zip(buffer.buffer, twin.buffer, strict=True):
        assert torch.equal(one[0], other[0])
        assert one[1:] == other[1:]
    torch.manual_seed(1)
    buffer.update_from_dataset(dataset([2], 5)[0])
    torch.manual_seed(1)
    twin.update_from_dataset(dataset([2], 5)[0])
    assert counts(twin) == counts(buffer) == {0: 2, 1: 1, 2: 1}


def test_a_budget_without_room_is_refused():
    buffer = MaterializedBuffer(max_size=4, max_mb=2 * PER_IMAGE / 1e6)
    with pytest.raises(TrainingError, match=r"room for 2 images.*3 categories: raise"):
        buffer.update_from_dataset(dataset([0, 1, 2], 10)[0])
    buffer.update_from_dataset(dataset([0, 1], 10)[0])
    for size in (1, 0, -4):
        with pytest.raises(TrainingError, match=rf"room for {size} images? of"):
            buffer.resize(None, size)
    with pytest.raises(TrainingError, match="expected dtype"):
        MaterializedBuffer(4, 1.0, "int8")


@pytest.mark.parametrize(
    ("max_size", "max_mb"),
    [(0, 1.0), (-1, 1.0), (4, 0.0), (4, -1.0), (4, math.nan), (4, math.inf)],
)
def test_limits_that_are_none_are_refused(max_size, max_mb):
    expected = rf"and finite, got {max_size} images and {max_mb} MB: give it room"
    with pytest.raises(TrainingError, match=expected):
        MaterializedBuffer(max_size, max_mb)


def test_the_stock_replay_plugin_trains_from_it(stream, make_strategy):
    buffer = MaterializedBuffer(max_size=8, max_mb=1.0)
    replay = ReplayPlugin(mem_size=8, batch_size_mem=4, storage_policy=buffer)
    seen = []
    strategy = make_strategy(plugins=[replay], train_epochs=1)
    forward = strategy.model.forward

    def note(x):
        seen.append(len(x))
        return forward(x)

    strategy.model.forward = note
    benchmark = stream()
    for experience in benchmark.train_stream:
        strategy.train(experience)
    assert seen[:3] == [8, 8, 8]
    assert seen[3:6] == [12, 12, 12]
    assert counts(buffer) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert buffer.nbytes == 8 * (strategy.model.layout.size * 2 + 12)
