################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

"""
Continual anomaly detection, measured by image and pixel AUROC, AUPRO and their
forgetting. Products arrive one after the other, all training images are normal;
an autoencoder that is trained naively reconstructs the latest one best.
"""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.evaluation.metrics import anomaly_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive

SIZE = 32


class Stripes(torch.utils.data.Dataset):
    """
    Striped parts of one kind: items (x, y, is_anomaly, mask). A defect is a spot.
    """

    def __init__(self, kind: int, count: int, defects: bool, seed: int):
        generator = torch.Generator().manual_seed(seed)
        rows, columns = torch.meshgrid(
            torch.arange(SIZE), torch.arange(SIZE), indexing="ij"
        )
        self.kind, self.items = kind, []
        for index in range(count):
            angle = torch.tensor(0.8 * kind)
            phase = 6.3 * torch.rand((), generator=generator)
            along = rows * angle.cos() + columns * angle.sin()
            x = 0.5 + 0.3 * torch.sin(along * (0.6 + 0.3 * kind) + phase)
            x = x + 0.05 * torch.randn(SIZE, SIZE, generator=generator)
            mask = torch.zeros(SIZE, SIZE)
            if defects and index % 2:
                top, left = torch.randint(4, SIZE - 8, (2,), generator=generator)
                mask[top : top + 5, left : left + 5] = 1
                x = torch.where(mask > 0, torch.full_like(x, 0.5), x)
            self.items.append((x[None], int(mask.any()), mask))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        x, is_anomaly, mask = self.items[index]
        return x, self.kind, is_anomaly, mask


class Autoencoder(nn.Module):
    """
    Gives the squared error of its reconstruction, which is loss and score map.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 6, 1),
            nn.ConvTranspose2d(6, 16, 4, stride=4),
            nn.ReLU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )

    def forward(self, x):
        return (self.layers(x) - x).square()[:, 0]

    def score(self, output, mask_size):
        maps = F.avg_pool2d(output[:, None], 5, stride=1, padding=2)
        maps = F.interpolate(maps, mask_size)[:, 0]
        return SimpleNamespace(image=maps.amax((1, 2)), maps=maps)


def make_dataset(kind, count, defects, seed):
    images = Stripes(kind, count, defects, seed)
    targets = DataAttribute([kind] * count, "targets")
    return AvalancheDataset([images], data_attributes=[targets])


def main():
    torch.manual_seed(0)
    kinds = range(3)
    benchmark = benchmark_from_datasets(
        train=[make_dataset(kind, 64, False, kind) for kind in kinds],
        test=[make_dataset(kind, 40, True, 100 + kind) for kind in kinds],
    )
    model = Autoencoder()
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=5e-3),
        criterion=lambda output, y: output.mean(),
        train_mb_size=8,
        train_epochs=30,
        eval_mb_size=40,
        evaluator=EvaluationPlugin(
            *anomaly_metrics(experience=True, stream=True, forgetting=True),
            loggers=[],
        ),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
        results = strategy.eval(benchmark.test_stream)
        print(f"After experience {experience.current_experience}:")
        for name, value in results.items():
            print(f"  {name}: {value:.3f}")


if __name__ == "__main__":
    main()
