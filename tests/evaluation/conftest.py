"""A two-experience anomaly stream and a model whose scores the test decides."""

from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_task_labels
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute, TaskLabels
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.utils.data import Dataset

SIZE = 8


class Items(Dataset):
    """Items of a stream; ``x`` is the image, flattened."""

    def __init__(self, y, is_anomaly=None, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.targets = list(y)
        self.is_anomaly = is_anomaly
        self.x = torch.randn(len(y), SIZE, SIZE, generator=generator)
        self.mask = torch.zeros(len(y), SIZE, SIZE, dtype=torch.bool)
        for index, flag in enumerate(is_anomaly or []):
            if flag:
                row = index % 4
                self.mask[index, row : row + 3, 2:5] = True
                self.x[index][self.mask[index]] += 1.5

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        item = (self.x[index].flatten(), self.targets[index])
        if self.is_anomaly is None:
            return item
        return (*item, int(self.is_anomaly[index]), self.mask[index])


class PixelModel(nn.Module):
    """Scores a pixel by its brightness, times ``skill`` unless told the category.

    With ``skill`` -1 the task-agnostic ranking is turned around, that of the oracle is
    not. Every image is taken for category ``inferred``.
    """

    def __init__(self, categories=3):
        super().__init__()
        self.linear = nn.Linear(SIZE * SIZE, categories)
        self.skill = 1.0
        self.inferred = 0
        self.calls = []

    def forward(self, x):
        output = self.linear(x)
        output.images = x.detach().view(-1, SIZE, SIZE)
        return output

    def score(self, output, mask_size, category=None):
        self.calls.append("agnostic" if category is None else "oracle")
        inferred = torch.full((len(output.images),), self.inferred)
        # the scores depend on the category alone, whoever named it
        used = inferred if category is None else category
        skill = torch.where(used == self.inferred, self.skill, 1.0)
        maps = output.images * skill[:, None, None]
        assert tuple(mask_size) == tuple(maps.shape[-2:])
        return SimpleNamespace(
            image=maps.flatten(1).amax(1),
            maps=maps,
            category=used,
        )


def as_avalanche(items, task):
    dataset = as_classification_dataset(items)
    if task is None:
        return dataset
    return AvalancheDataset(
        [items],
        data_attributes=[
            DataAttribute(items.targets, "targets"),
            TaskLabels([task] * len(items)),
        ],
    )


@pytest.fixture
def make_benchmark():
    """Build streams with categories 0 and 1 in experience 0 and 2 in experience 1."""

    def make(*, with_task_ids=False, flags=None, unknown=()):
        flags = {0: [0, 1] * 6, 1: [0, 0, 1] * 4, 2: [1, 1, 0] * 5} | (flags or {})
        train, test = [], []
        for index, categories in enumerate([(0, 1), (2,)]):
            task = index if with_task_ids else None
            y = [c for c in categories for _ in range(8)]
            train.append(as_avalanche(Items(y, seed=index), task))
            y = [c for c in categories for _ in flags[c]]
            is_anomaly = [flag for c in categories for flag in flags[c]]
            items = Items(y, is_anomaly, seed=10 + index)
            if unknown:  # numbers of items of experience 0
                items.mask = items.mask.to(torch.uint8)
                items.mask[[*unknown] if index == 0 else []] = 255
            test.append(as_avalanche(items, task))
        benchmark = benchmark_from_datasets(train=train, test=test)
        return with_task_labels(benchmark) if with_task_ids else benchmark

    return make


@pytest.fixture
def model():
    torch.manual_seed(0)
    return PixelModel()


@pytest.fixture
def make_strategy(model):
    """Build a strategy with the given metrics and loggers."""

    def make(*metrics, loggers=(), **kwargs):
        return SupervisedTemplate(
            model=kwargs.pop("model", model),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=8,
            train_epochs=1,
            eval_mb_size=5,
            evaluator=EvaluationPlugin(*metrics, loggers=list(loggers)),
            **kwargs,
        )

    return make
