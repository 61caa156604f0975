import unittest
from types import SimpleNamespace

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.evaluation.metrics import anomaly_metrics
from avalanche.evaluation.metrics.anomaly import AUPRO, ImageAUROC, PixelAUROC
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive


class Images(torch.utils.data.Dataset):
    """Items (x, y, is_anomaly, mask) of 6x6 pixels; half are brighter in a corner."""

    def __init__(self, kinds, count=12):
        generator = torch.Generator().manual_seed(kinds[0])
        self.y = [kind for kind in kinds for _ in range(count)]
        self.masks = torch.zeros(len(self.y), 6, 6)
        self.masks[::2, :2, :3] = 1
        self.x = torch.randn(len(self.y), 6, 6, generator=generator) + self.masks

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        mask = self.masks[index]
        return self.x[index], self.y[index], int(mask.any()), mask


class Brightness(torch.nn.Module):
    """Scores by brightness times a weight that a test can set."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.asked = 0

    def forward(self, x):
        return self.weight * x

    def score(self, output, mask_size):
        self.asked += 1
        assert mask_size == tuple(output.shape[-2:])
        return SimpleNamespace(image=output.amax((1, 2)), maps=output)


def make_benchmark(*experiences):
    datasets = []
    for kinds in experiences:
        images = Images(kinds)
        targets = DataAttribute(images.y, "targets")
        datasets.append(AvalancheDataset([images], data_attributes=[targets]))
    return benchmark_from_datasets(train=datasets, test=datasets)


def make_strategy(*metrics):
    model = Brightness()
    return Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        criterion=lambda output, y: output.square().mean(),
        train_mb_size=8,
        eval_mb_size=5,
        evaluator=EvaluationPlugin(*metrics, loggers=[]),
    )


def aupro(maps, masks, limit):
    """The definition, evaluated at every threshold."""
    regions = []
    for image, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(image, labelled == index) for index in range(1, count + 1)]
    rate, overlap = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        rate.append(float((maps[~masks] >= threshold).mean()))
        found = [(maps[image][own] >= threshold).mean() for image, own in regions]
        overlap.append(float(np.mean(found)))
    fine = np.linspace(0, limit, 20001)
    values = np.interp(fine, rate, overlap)
    return float(np.mean((values[1:] + values[:-1]) / 2))


class StandaloneTests(unittest.TestCase):
    def test_auroc_is_that_of_sklearn_with_ties(self):
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            scores = torch.randint(8, (40,), generator=generator).float()
            labels = torch.arange(40) % 3 == 0
            metric = ImageAUROC()
            for part in range(0, 40, 7):
                metric.update(scores[part : part + 7], labels[part : part + 7])
            self.assertAlmostEqual(
                metric.result(), roc_auc_score(labels, scores), places=9
            )

    def test_pixels_are_pooled_within_a_class_and_classes_are_not(self):
        images = Images([0, 1])
        y = torch.tensor(images.y)
        metric = PixelAUROC()
        metric.update(images.x + 10 * y[:, None, None], images.masks, y)
        expected = [
            roc_auc_score(images.masks[y == k].ravel(), images.x[y == k].ravel())
            for k in (0, 1)
        ]
        self.assertAlmostEqual(metric.result(), np.mean(expected), places=6)

    def test_aupro_is_its_definition(self):
        images = Images([3], count=4)
        images.masks[0, 5, 5] = 1  # a second defect
        maps, masks = images.x.numpy(), images.masks.numpy() > 0
        for limit in (0.1, 0.3, 1.0):
            metric = AUPRO(limit)
            metric.update(images.x, images.masks)
            self.assertAlmostEqual(metric.result(), aupro(maps, masks, limit), places=3)

    def test_one_class_of_labels_has_no_value(self):
        for metric in (ImageAUROC(), PixelAUROC(), AUPRO()):
            size = (3, 4, 4) if metric.pixels else (3,)
            metric.update(torch.rand(size), torch.zeros(size))
            self.assertTrue(np.isnan(metric.result()))
            metric.reset()
            self.assertTrue(np.isnan(metric.result()))

    def test_shapes_must_agree(self):
        with self.assertRaises(ValueError):
            ImageAUROC().update(torch.rand(3), torch.zeros(4))


class PluginTests(unittest.TestCase):
    def test_all_levels_are_emitted_and_the_model_is_asked_once(self):
        benchmark = make_benchmark([0, 1], [2, 3])
        strategy = make_strategy(
            *anomaly_metrics(minibatch=True, epoch=True, experience=True, stream=True)
        )
        strategy.train(benchmark.train_stream[0])
        strategy.model.asked = 0
        found = strategy.eval(benchmark.test_stream)
        self.assertEqual(strategy.model.asked, 2 * 5)  # minibatches of 24 images
        names = {name.split("/")[0] for name in strategy.evaluator.get_all_metrics()}
        for measure in ("ImageAUROC", "PixelAUROC", "AUPRO"):
            for suffix in ("MB", "Epoch", "Exp", "Stream"):
                self.assertIn(f"{measure}_{suffix}", names)
        whole = [v for k, v in found.items() if k.startswith("ImageAUROC_Stream")]
        parts = [v for k, v in found.items() if k.startswith("ImageAUROC_Exp")]
        self.assertEqual((len(whole), len(parts)), (1, 2))
        self.assertAlmostEqual(whole[0], np.mean(parts), places=9)

    def test_forgetting_is_the_value_when_learned_less_the_value_now(self):
        benchmark = make_benchmark([0], [1])
        strategy = make_strategy(
            *anomaly_metrics(experience=True, forgetting=True, bwt=True)
        )

        def evaluate(weight):
            with torch.no_grad():
                strategy.model.weight.fill_(weight)
            found = strategy.eval(benchmark.test_stream)
            return {key.split("/")[0] + key[-7:]: found[key] for key in found}

        strategy.train(benchmark.train_stream[0])
        learned = evaluate(1.0)
        strategy.train(benchmark.train_stream[1])
        now = evaluate(-1.0)
        lost = learned["PixelAUROC_Exp/Exp000"] - now["PixelAUROC_Exp/Exp000"]
        self.assertGreater(lost, 0)
        self.assertAlmostEqual(now["PixelAUROC_ExperienceForgetting/Exp000"], lost)
        self.assertAlmostEqual(now["PixelAUROC_ExperienceBWT/Exp000"], -lost)
        self.assertNotIn("PixelAUROC_ExperienceForgetting/Exp001", now)
        found = strategy.evaluator.get_last_metrics()
        for name, expected in (("Forgetting", lost), ("BWT", -lost)):
            (value,) = [
                v for k, v in found.items() if k.startswith(f"PixelAUROC_Stream{name}")
            ]
            self.assertAlmostEqual(value, expected)

    def test_minibatches_without_labels_are_passed_over(self):
        datasets = [torch.utils.data.TensorDataset(torch.rand(6, 4, 4), torch.ones(6))]
        targets = DataAttribute([1] * 6, "targets")
        data = [AvalancheDataset(datasets, data_attributes=[targets])]
        benchmark = benchmark_from_datasets(train=data, test=data)
        strategy = make_strategy(*anomaly_metrics(epoch=True, stream=True))
        strategy.train(benchmark.train_stream[0])
        self.assertEqual(strategy.eval(benchmark.test_stream), {})


if __name__ == "__main__":
    unittest.main()
