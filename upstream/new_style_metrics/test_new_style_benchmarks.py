import unittest

import torch
from torch.utils.data import TensorDataset

from avalanche.benchmarks.scenarios import class_incremental_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.evaluation.metrics import confusion_matrix_metrics, topk_acc_metrics
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from tests.unit_tests_utils import get_device


def make_dataset():
    """Six features of ten classes, without task labels."""
    targets = torch.arange(100) % 10
    dataset = TensorDataset(torch.randn(100, 6), targets)
    dataset.targets = targets.tolist()
    return as_classification_dataset(dataset)


class NewStyleBenchmarkTests(unittest.TestCase):
    def evaluate(self, *metrics):
        datasets = {"train": make_dataset(), "test": make_dataset()}
        benchmark = class_incremental_benchmark(datasets, num_experiences=5)
        model = SimpleMLP(num_classes=10, input_size=6, hidden_size=10)
        strategy = Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=32,
            device=get_device(),
            evaluator=EvaluationPlugin(*metrics, loggers=[]),
        )
        strategy.train(benchmark.train_stream[0])
        return strategy.eval(benchmark.test_stream)

    def test_confusion_matrix_with_an_image(self):
        found = self.evaluate(confusion_matrix_metrics(stream=True, save_image=True))
        (value,) = found.values()
        matrix = value.best_supported_value(torch.Tensor)
        self.assertEqual(int(matrix.sum()), 100)

    def test_topk_accuracy(self):
        found = self.evaluate(
            topk_acc_metrics(top_k=2, experience=True, stream=True, epoch=True)
        )
        shares = [value for name, value in found.items() if "_Exp/" in name]
        self.assertEqual(len(shares), 5)
        (whole,) = [value for name, value in found.items() if "_Stream/" in name]
        self.assertAlmostEqual(whole, sum(shares) / 5, places=5)


if __name__ == "__main__":
    unittest.main()
