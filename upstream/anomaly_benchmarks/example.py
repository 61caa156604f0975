################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

"""
A stream of anomaly detection: the categories of MVTec AD arrive three by three,
all training images normal. With the path of the dataset as argument its images
are taken; without one, small ones are drawn in a temporary folder.
"""

import argparse
import os
import tempfile

import torch
from PIL import Image, ImageDraw
from torch import nn
from torchvision.transforms import Compose, Resize, ToTensor

from avalanche.benchmarks.classic import SplitMVTecAD
from avalanche.benchmarks.datasets import MVTEC_AD_CATEGORIES
from avalanche.training.supervised import Naive


def draw_dataset(root: str) -> None:
    """
    Draw stripes for each category; every other test image is scratched.
    """
    for index, category in enumerate(MVTEC_AD_CATEGORIES):
        for split, count in (("train", 8), ("test", 4)):
            for number in range(count):
                defect = split == "test" and number % 2
                kind = "scratch" if defect else "good"
                image = Image.new("RGB", (64, 64), (40 + 12 * index, 128, 90))
                pencil = ImageDraw.Draw(image)
                for start in range(number % 4, 64, 4 + index):
                    pencil.line((start, 0, start, 63), fill=(200, 200, 60))
                folder = os.path.join(root, category, split, kind)
                os.makedirs(folder, exist_ok=True)
                if defect:
                    line = (10, 12 + 8 * number, 50, 30)
                    pencil.line(line, fill=(0, 0, 0), width=4)
                    mask = Image.new("L", (64, 64))
                    ImageDraw.Draw(mask).line(line, fill=255, width=4)
                    masks = os.path.join(root, category, "ground_truth", kind)
                    os.makedirs(masks, exist_ok=True)
                    mask.save(os.path.join(masks, f"{number:03d}_mask.png"))
                image.save(os.path.join(folder, f"{number:03d}.png"))


class Autoencoder(nn.Module):
    """
    Its output is the squared error of the reconstruction, (N, H, W).
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 8, stride=8),
            nn.ReLU(),
            nn.Conv2d(32, 8, 1),
            nn.ConvTranspose2d(8, 3, 8, stride=8),
        )

    def forward(self, x):
        return (self.layers(x) - x).square().mean(1)


def run(root: str) -> None:
    torch.manual_seed(0)
    transform = Compose([Resize((64, 64)), ToTensor()])
    benchmark = SplitMVTecAD(
        5,
        seed=0,
        train_transform=transform,
        eval_transform=transform,
        mask_size=(64, 64),
        dataset_root=root,
    )
    model = Autoencoder()
    strategy = Naive(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-2),
        criterion=lambda output, y: output.mean(),
        train_mb_size=8,
        train_epochs=30,
        evaluator=None,
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    model.eval()
    for experience in benchmark.test_stream:
        inside, outside = [], []
        for x, y, is_anomaly, mask, task in experience.dataset:
            with torch.no_grad():
                error = model(x[None])[0]
            outside.append(error[mask == 0].mean())
            if is_anomaly:
                inside.append(error[mask > 0].mean())
        names = [MVTEC_AD_CATEGORIES[c] for c in experience.classes_in_this_experience]
        ratio = torch.stack(inside).mean() / torch.stack(outside).mean()
        print(f"{', '.join(sorted(names))}: error on defects {ratio:.1f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", nargs="?", help="folder of MVTec AD")
    root = parser.parse_args().root
    if root:
        run(root)
    else:
        with tempfile.TemporaryDirectory() as folder:
            draw_dataset(folder)
            run(folder)


if __name__ == "__main__":
    main()
