import unittest

import torch

from avalanche.core import SupervisedPlugin
from avalanche.models import SimpleMLP
from avalanche.training.plugins import GenerativeReplayPlugin
from avalanche.training.supervised import Naive
from tests.unit_tests_utils import get_device, get_fast_benchmark


class GeneratingClassifier(SimpleMLP):
    """A classifier that draws samples as well."""

    def generate(self, batch_size, condition=None):
        return torch.randn(batch_size, 6)


class LabelKeeper(SupervisedPlugin):
    """Keep what is drawn and how it is labelled, and how it is to be labelled."""

    def __init__(self, replay):
        super().__init__()
        self.replay, self.found, self.expected = replay, [], []

    def before_forward(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter:
            drawn = strategy.mb_x[32:]
            self.found.append(strategy.mb_y[32:])
            with torch.no_grad():
                self.expected.append(self.replay.old_generator(drawn).argmax(-1))


class GenerativeReplayTests(unittest.TestCase):
    def train(self, **options):
        torch.manual_seed(0)
        model = GeneratingClassifier(num_classes=10, input_size=6, hidden_size=10)
        replay = GenerativeReplayPlugin(**options)
        keeper = LabelKeeper(replay)
        strategy = Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=32,
            device=get_device(),
            plugins=[replay, keeper],
            evaluator=None,
        )
        for experience in get_fast_benchmark().train_stream[:2]:
            strategy.train(experience)
        return keeper

    def test_a_classifier_that_generates_labels_what_it_drew(self):
        keeper = self.train(replay_size=16)
        found, expected = torch.cat(keeper.found), torch.cat(keeper.expected)
        self.assertEqual(found.dtype, torch.long)
        self.assertTrue(torch.equal(found.cpu(), expected.cpu()))
        self.assertTrue(bool((found > 0).any()))

    def test_the_weighted_loss_is_of_what_was_drawn(self):
        # 16 drawn samples beside minibatches of 32: their outputs, their labels
        keeper = self.train(replay_size=16, is_weighted_replay=True)
        self.assertEqual(sum(len(labels) for labels in keeper.found), 0)


if __name__ == "__main__":
    unittest.main()
