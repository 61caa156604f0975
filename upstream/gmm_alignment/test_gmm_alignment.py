import unittest

import torch
from torch.distributions import MultivariateNormal

from avalanche.models import FlowGMM, FlowGMMLoss
from avalanche.training.plugins import GMMAlignmentPlugin
from avalanche.training.supervised import Naive
from tests.unit_tests_utils import get_device, get_fast_benchmark


def make_model(**options):
    torch.manual_seed(0)
    model = FlowGMM(6, 10, **options)
    for coupling in model.flow:
        torch.nn.init.normal_(coupling.layers[-1].weight, std=0.1)
    return model


class FlowGMMTests(unittest.TestCase):
    def test_log_det_is_that_of_the_jacobian(self):
        model = make_model()
        x = torch.randn(3, 6)
        _, log_det = model.latents(x)
        for row, value in zip(x, log_det):
            jacobian = torch.autograd.functional.jacobian(
                lambda one: model.latents(one[None])[0][0], row
            )
            expected = torch.linalg.slogdet(jacobian)[1]
            self.assertAlmostEqual(float(value), float(expected), places=4)

    def test_output_is_the_density_by_the_aligned_gaussians(self):
        model = make_model().eval()
        x = torch.randn(40, 6)
        z, log_det = model.latents(x)
        model.align(3, z[:20])
        model.align(7, 2 + z[20:])
        output = model(x)
        for label in (3, 7):
            root = model.aligned_roots[label]
            gaussian = MultivariateNormal(
                model.aligned_means[label], precision_matrix=root @ root.T
            )
            expected = (gaussian.log_prob(z) + log_det) / 6
            self.assertTrue(torch.allclose(output[:, label], expected, atol=1e-4))
        self.assertTrue(torch.isin(output.argmax(1), torch.tensor([3, 7])).all())

    def test_output_before_any_alignment_is_of_the_means(self):
        model = make_model()
        x = torch.randn(5, 6)
        z, log_det = model.latents(x)
        gaussian = MultivariateNormal(model.means[4], torch.eye(6))
        expected = (gaussian.log_prob(z) + log_det) / 6
        self.assertTrue(torch.allclose(model(x)[:, 4], expected, atol=1e-4))


class GMMAlignmentTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.benchmark = get_fast_benchmark(shuffle=False, seed=0)

    def train(self, plugins):
        torch.manual_seed(0)
        model = FlowGMM(6, 10)
        strategy = Naive(
            model=model,
            optimizer=torch.optim.Adam(model.parameters(), lr=3e-3),
            criterion=FlowGMMLoss(),
            train_mb_size=16,
            train_epochs=10,
            eval_mb_size=64,
            device=get_device(),
            plugins=plugins,
            evaluator=None,
        )
        for experience in self.benchmark.train_stream[:3]:
            strategy.train(experience)
        model.eval()
        right = []
        with torch.no_grad():
            for experience in self.benchmark.test_stream[:2]:
                for x, y, *_ in experience.dataset.eval():
                    output = model(x[None].float().to(strategy.device))
                    right.append(int(output.argmax()) == int(y))
        return strategy, sum(right) / len(right)

    def test_old_classes_are_found_again(self):
        plugin = GMMAlignmentPlugin(rank=6)
        strategy, aligned = self.train([plugin])
        _, naive = self.train([])
        self.assertGreater(aligned, naive + 0.2)
        self.assertEqual(sorted(plugin.statistics), list(range(6)))
        found = strategy.model.aligned.nonzero().flatten().tolist()
        self.assertEqual(found, list(range(6)))

    def test_alignment_does_not_change_the_training(self):
        weights = []
        for plugins in ([], [GMMAlignmentPlugin()]):
            strategy, _ = self.train(plugins)
            weights.append([p.detach().clone() for p in strategy.model.parameters()])
        for one, other in zip(*weights):
            self.assertTrue(torch.equal(one, other))


if __name__ == "__main__":
    unittest.main()
