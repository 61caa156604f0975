################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

"""
Forgetting of a flow-GMM is mostly a mismatch: digits arrive two by two, a
normalizing flow is trained naively on their frozen features, and after the last
experience it is asked about all ten, with its Gaussians as they were trained, and
with Gaussians aligned with the flow without an image of old digits.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch.utils.data import TensorDataset

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import FlowGMM, FlowGMMLoss
from avalanche.training.plugins import EvaluationPlugin, GMMAlignmentPlugin
from avalanche.training.supervised import Naive


def make_dataset(x, y, classes):
    chosen = torch.isin(y, torch.tensor(classes))
    targets = DataAttribute(y[chosen].tolist(), "targets")
    return AvalancheDataset(
        [TensorDataset(x[chosen], y[chosen])], data_attributes=[targets]
    )


def make_benchmark():
    digits = load_digits()
    y = torch.tensor(digits.target)
    test = torch.arange(len(y)) % 4 == 0
    # features that never change: axes of the first two digits
    first = digits.data[((y < 2) & ~test).numpy()]
    features = PCA(20, whiten=True, random_state=0).fit(first)
    x = torch.tensor(features.transform(digits.data), dtype=torch.float32)
    pairs = [[2 * k, 2 * k + 1] for k in range(5)]
    return benchmark_from_datasets(
        train=[make_dataset(x[~test], y[~test], pair) for pair in pairs],
        test=[make_dataset(x[test], y[test], pair) for pair in pairs],
    )


def run(name, plugins):
    torch.manual_seed(0)
    benchmark = make_benchmark()
    model = FlowGMM(20, 10)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
        criterion=FlowGMMLoss(),
        train_mb_size=32,
        train_epochs=20,
        eval_mb_size=256,
        plugins=plugins,
        evaluator=EvaluationPlugin(
            accuracy_metrics(stream=True, experience=True), loggers=[]
        ),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    print(name)
    for key, value in strategy.eval(benchmark.test_stream).items():
        print(f"  {key}: {value:.3f}")


def main():
    run("as trained", [])
    run("aligned", [GMMAlignmentPlugin()])


if __name__ == "__main__":
    main()
