import copy
import unittest

import torch
from torch import nn

from avalanche.training.plugins import FeatureStatisticsReplayPlugin
from avalanche.training.plugins.feature_statistics_replay import GaussianStatistics
from avalanche.training.supervised import Naive
from tests.unit_tests_utils import get_device, get_fast_benchmark


class FrozenFeatures(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(6, 32), nn.Tanh()).requires_grad_(False)
        self.classifier = nn.Linear(32, classes)

    def forward(self, x):
        return self.classifier(self.features(x))


def covariance(x):
    centred = x.flatten(1) - x.flatten(1).mean(0)
    return centred.T @ centred / len(x)


class GaussianStatisticsTests(unittest.TestCase):
    def features(self, count=400):
        torch.manual_seed(0)
        return torch.randn(count, 3) @ torch.randn(3, 5) + 0.3 * torch.randn(count, 5)

    def test_moments_are_those_of_the_features(self):
        x = self.features()
        statistics = GaussianStatistics(rank=5)
        statistics.update(x)
        drawn = statistics.sample(200_000)
        self.assertLess(float((drawn.mean(0) - x.mean(0)).abs().max()), 0.03)
        difference = covariance(drawn) - covariance(x)
        self.assertLess(float(difference.abs().max()), 0.1)

    def test_few_modes_keep_the_variances(self):
        x = self.features()
        for rank in (0, 1, 3):
            statistics = GaussianStatistics(rank)
            statistics.update(x)
            drawn = statistics.sample(200_000)
            ratio = drawn.var(0) / x.var(0, unbiased=False)
            self.assertLess(float((ratio - 1).abs().max()), 0.05)

    def test_parts_give_what_all_at_once_give(self):
        x = self.features().view(-1, 5, 1)
        whole, parts = GaussianStatistics(rank=5), GaussianStatistics(rank=5)
        whole.update(x)
        for part in x.split([7, 93, 300]):
            parts.update(part)
        self.assertEqual(parts.count, 400)
        self.assertTrue(torch.allclose(whole.mean, parts.mean, atol=1e-5))
        self.assertTrue(torch.allclose(whole.variance, parts.variance, atol=1e-4))
        for one in (whole, parts):
            modes = one.modes.flatten(1)
            self.assertTrue(torch.allclose(modes.T @ modes, covariance(x), atol=1e-4))

    def test_one_image_is_drawn_as_it_is(self):
        statistics = GaussianStatistics(rank=2)
        statistics.update(torch.ones(1, 2, 3))
        self.assertTrue(torch.equal(statistics.sample(4), torch.ones(4, 2, 3)))


class FeatureStatisticsReplayTests(unittest.TestCase):
    def train(self, plugins, experiences=3):
        torch.manual_seed(0)
        model = FrozenFeatures()
        strategy = Naive(
            model=model,
            optimizer=torch.optim.Adam(model.classifier.parameters(), lr=1e-2),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=16,
            train_epochs=8,
            eval_mb_size=16,
            device=get_device(),
            plugins=plugins,
            evaluator=None,
        )
        benchmark = get_fast_benchmark(shuffle=False, seed=0)
        for experience in benchmark.train_stream[:experiences]:
            strategy.train(experience)
        right = []
        with torch.no_grad():
            for experience in benchmark.test_stream[: experiences - 1]:
                for x, y, *_ in experience.dataset.eval():
                    output = strategy.model(x[None].to(strategy.device))
                    right.append(int(output.argmax()) == int(y))
        return strategy, sum(right) / len(right)

    def test_old_classes_are_held(self):
        plugin = FeatureStatisticsReplayPlugin(
            rank=8, features="features", head="classifier"
        )
        _, held = self.train([plugin])
        _, naive = self.train([])
        self.assertGreater(held, naive + 0.1)
        self.assertEqual(sorted(plugin.statistics), [0, 1, 2, 3, 4, 5])

    def test_every_class_is_drawn_about_as_often(self):
        plugin = FeatureStatisticsReplayPlugin(features="features", head="classifier")
        self.train([plugin], experiences=2)
        x, y = plugin.draw([0, 1, 3], 32)
        self.assertEqual(tuple(x.shape), (32, 32))
        self.assertEqual(sorted(set(y.tolist())), [0, 1, 3])
        self.assertLessEqual(int(y.bincount()[[0, 1, 3]].max()), 11)

    def test_sizes_that_mean_nothing_are_refused(self):
        for wrong in ({"rank": -1}, {"batch_size": 0}):
            with self.assertRaises(ValueError):
                FeatureStatisticsReplayPlugin(**wrong)

    def test_it_survives_a_copy_and_keeps_the_mode(self):
        plugin = FeatureStatisticsReplayPlugin(features="features", head="classifier")
        strategy, _ = self.train([plugin], experiences=1 + 1)
        strategy.model.train()
        copied = copy.deepcopy(plugin)
        self.assertEqual(sorted(copied.statistics), sorted(plugin.statistics))
        self.assertTrue(strategy.model.training)


if __name__ == "__main__":
    unittest.main()
