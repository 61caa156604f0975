import unittest

import torch

from avalanche.core import SupervisedPlugin
from avalanche.models import SimpleMLP
from avalanche.models.packnet import PackNetModel, PackNetPlugin
from avalanche.training.supervised import PackNet
from tests.unit_tests_utils import get_device, get_fast_benchmark


class CountingPlugin(SupervisedPlugin):
    """Count the experiences that were trained."""

    def __init__(self):
        super().__init__()
        self.experiences = 0

    def after_training_exp(self, strategy, **kwargs):
        self.experiences += 1


class PackNetPluginsTests(unittest.TestCase):
    def train(self, plugins):
        model = PackNetModel(SimpleMLP(input_size=6, hidden_size=50))
        strategy = PackNet(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            post_prune_epochs=1,
            prune_proportion=0.5,
            train_mb_size=32,
            train_epochs=2,
            device=get_device(),
            plugins=plugins,
            evaluator=None,
        )
        benchmark = get_fast_benchmark(use_task_labels=True)
        strategy.train(benchmark.train_stream[0])
        return strategy

    def test_given_plugins_are_called(self):
        plugin = CountingPlugin()
        given = [plugin]
        self.train(given)
        self.assertEqual(plugin.experiences, 1)
        self.assertEqual(given, [plugin])

    def test_all_plugins_are_plugins(self):
        for given in (None, [], [CountingPlugin()]):
            plugins = self.train(given).plugins
            self.assertNotIn(None, plugins)
            self.assertFalse([one for one in plugins if isinstance(one, list)])
            packnet = [one for one in plugins if isinstance(one, PackNetPlugin)]
            self.assertEqual(len(packnet), 1)


if __name__ == "__main__":
    unittest.main()
