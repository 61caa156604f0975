################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

"""
Class-incremental classification of handwritten digits without keeping an image:
features of a frozen network are replayed from a Gaussian of each class. The
digits are those of scikit-learn, so nothing is downloaded; the network is
trained on the first two of them, and frozen.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import (
    EvaluationPlugin,
    FeatureStatisticsReplayPlugin,
    ReplayPlugin,
)
from avalanche.training.supervised import Naive


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(512, 10)

    def forward(self, x):
        return self.classifier(self.features(x))


def make_dataset(x, y, classes):
    chosen = torch.isin(y, torch.tensor(classes))
    targets = DataAttribute(y[chosen].tolist(), "targets")
    return AvalancheDataset(
        [TensorDataset(x[chosen], y[chosen])], data_attributes=[targets]
    )


def make_benchmark():
    digits = load_digits()
    x = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    y = torch.tensor(digits.target)
    test = torch.arange(len(x)) % 4 == 0
    pairs = [[2 * k, 2 * k + 1] for k in range(5)]
    return benchmark_from_datasets(
        train=[make_dataset(x[~test], y[~test], pair) for pair in pairs],
        test=[make_dataset(x[test], y[test], pair) for pair in pairs],
    )


def run(name, plugins):
    torch.manual_seed(0)
    benchmark = make_benchmark()
    model = Network()
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=16,
        train_epochs=10,
        eval_mb_size=64,
        plugins=plugins,
        evaluator=EvaluationPlugin(accuracy_metrics(stream=True), loggers=[]),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
        model.features.requires_grad_(False)
    (accuracy,) = strategy.eval(benchmark.test_stream).values()
    print(f"{name}: {accuracy:.3f} of all ten digits")


def main():
    run("naive", [])
    run("replay of 20 images", [ReplayPlugin(mem_size=20)])
    statistics = FeatureStatisticsReplayPlugin(
        rank=16, features="features", head="classifier"
    )
    run("replay of feature statistics", [statistics])


if __name__ == "__main__":
    main()
