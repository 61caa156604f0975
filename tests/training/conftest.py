"""A stream of two experiences of two categories each, in memory, and strategies."""

from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils import (
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch.utils.data import TensorDataset

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models.latents import latents_of
from avalanche_ad.training import DynamicFlowGMM, FlowGMMLoss, make_optimizer

LAYOUT = FeatureLayout(((2, 2, 6), (1, 1, 6)))


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


def as_avalanche(x, y, *extra):
    return TaskAwareSupervisedClassificationDataset(
        [TensorDataset(x, y, *extra)],
        data_attributes=[
            DataAttribute(y.tolist(), "targets"),
            DataAttribute(
                ConstantSequence(0, len(y)), "targets_task_labels", use_in_getitem=True
            ),
        ],
    )


@pytest.fixture
def train_stream():
    """Build a train stream of experiences given as (images, categories)."""

    def make(*experiences):
        data = [as_avalanche(x, y) for x, y in experiences]
        made = with_classes_timeline(benchmark_from_datasets(train=data))
        return with_task_labels(made).train_stream

    return make


@pytest.fixture
def layout():
    return LAYOUT


@pytest.fixture
def long(stream):
    return stream(train=40)


@pytest.fixture
def images():
    """Give the training features of a category, whichever experience has them."""

    def make(stream, category):
        rows = [
            x
            for experience in stream.train_stream
            for x, y, *_ in experience.dataset
            if y == category
        ]
        return torch.stack(rows)

    return make


@pytest.fixture
def likelihood():
    """Give the mean log p(x|c) / D over images and levels."""

    def make(model, x, category):
        model.eval()
        with torch.no_grad():
            chosen = torch.full((len(x),), category)
            levels = model.log_likelihood_levels(latents_of(model(x)), chosen)
        return float(torch.stack([level.mean() for level in levels]).mean())

    return make


@pytest.fixture
def stream():
    """Build the stream; category c's features lie around its own point.

    ``bent`` makes them no Gaussian.
    """

    def make(train=12, test=6, bent=False):
        generator = torch.Generator().manual_seed(3)
        points = 3 * torch.randn(4, 1, 6, generator=generator)

        def draw(categories, count):
            y = torch.tensor(categories).repeat_interleave(count)
            noise = torch.randn(len(y), 5, 6, generator=generator)
            if bent:
                noise = noise + 0.7 * noise.roll(1, -1).square()
            return (points[y] + 0.5 * noise).flatten(1), y

        learned, tested = [], []
        for categories in ((0, 1), (2, 3)):
            learned.append(as_avalanche(*draw(categories, train)))
            x, y = draw(categories, test)
            flags = torch.zeros(len(y), dtype=torch.bool)
            masks = torch.zeros(len(y), 4, 4, dtype=torch.bool)
            tested.append(as_avalanche(x, y, flags, masks))
        return with_task_labels(
            with_classes_timeline(benchmark_from_datasets(train=learned, test=tested))
        )

    return make


class Probe(SupervisedPlugin):
    """Note what ``look(strategy)`` sees at one hook of the loop."""

    def __init__(self, hook, look):
        super().__init__()
        self.seen = []
        setattr(self, hook, lambda strategy, **_: self.seen.append(look(strategy)))


@pytest.fixture
def probe():
    return Probe


@pytest.fixture
def make_model():
    def make(num_categories=4, **options):
        small = {"couplings": 2, "condition_channels": 4, "centers_per_category": 3}
        return DynamicFlowGMM(LAYOUT, num_categories, **(small | options))

    return make


@pytest.fixture
def make_strategy(make_model):
    """Build a small strategy; Naive unless another class is given."""

    def make(cls=Naive, model=None, plugins=(), **options):
        model = make_model() if model is None else model
        evaluator = EvaluationPlugin(
            accuracy_metrics(experience=True, stream=True),
            loss_metrics(epoch=True, experience=True),
            loggers=[],
            strict_checks=False,
        )
        return cls(
            model=model,
            optimizer=make_optimizer(model, lr=options.pop("lr", 5e-3)),
            criterion=FlowGMMLoss(lambda2=10.0),
            plugins=list(plugins),
            **(
                {
                    "evaluator": evaluator,
                    "train_mb_size": 8,
                    "train_epochs": 3,
                    "eval_mb_size": 8,
                }
                | options
            ),
        )

    return make


@pytest.fixture
def fake_strategy():
    """Only the attributes a plugin reads."""
    return SimpleNamespace
