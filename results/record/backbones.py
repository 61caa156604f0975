"""Compare frozen backbones by full-covariance Gaussians per category and level.

Usage: ``python results/record/backbones.py --data DIR [--data …] BACKBONE …`` with
``DIR`` a folder in MVTec layout or ``synthetic``, and ``BACKBONE`` a name or
``name:option=value:…``, for example ``embedded:weights=a.safetensors:strides=[4]``.

Prints, per backbone and data set, the mean over categories of image and pixel AUROC.
No category knows of another, and the score is calibrated on training normals.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avalanche_ad.datasets import AnomalyData, open_dataset
from avalanche_ad.datasets.masks import resize_mask
from avalanche_ad.evaluation.detection import auroc
from avalanche_ad.features import Backbone, make_backbone
from avalanche_ad.features.extraction import load_images
from avalanche_ad.models import FeatureGMM


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="+")
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic data")
    parser.add_argument("--components", type=int, default=1, help="Gaussians each")
    parser.add_argument(
        "--position-calibration", action=argparse.BooleanOptionalAction, default=True
    )
    parser.add_argument("--categories", action="store_true", help="a row for each")
    arguments = parser.parse_args()
    sets = [opened(name, arguments.size, arguments.seed) for name in arguments.data]
    print(
        "| backbone | data | image AUROC | pixel AUROC |\n| --- | --- | ---: | ---: |"
    )
    for name in arguments.backbones:
        backbone = named(name)
        for data, title in zip(sets, arguments.data, strict=True):
            found = {
                category: measured(
                    backbone,
                    data,
                    category,
                    arguments.size,
                    components=arguments.components,
                    position_calibration=arguments.position_calibration,
                )
                for category in data.categories
            }
            images, pixels = zip(*found.values(), strict=True)
            masked = [value for value in pixels if value is not None]
            rows = {"": (np.mean(images), np.mean(masked) if masked else None)}
            if arguments.categories:
                rows = {f" {key}": value for key, value in found.items()} | rows
            for category, (image, pixel) in rows.items():
                print(
                    f"| {name} | {Path(title).name}{category} | {image:.3f} "
                    f"| {'–' if pixel is None else f'{pixel:.3f}'} |",
                    flush=True,
                )


def opened(name: str, size: int, seed: int) -> AnomalyData:
    """Return the procedural data set, or a folder."""
    if name == "synthetic":
        return open_dataset(name, image_size=size, seed=seed)
    return open_dataset("folder", Path(name))


def named(text: str) -> Backbone:
    """Return the backbone of ``name:option=value:…``."""
    name, *options = text.split(":")
    if name == "timm":
        name = f"timm:{options.pop(0)}"
    values = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            values[key] = json.loads(value)
        except json.JSONDecodeError:
            values[key] = value
    return make_backbone(name, **values)


def measured(
    backbone: Backbone,
    data: AnomalyData,
    category: str,
    size: int,
    **options: Any,
) -> tuple[float, float | None]:
    """Return image and pixel AUROC of one category; options are of the model.

    The latter is ``None`` for a category without masks.
    """
    samples = [sample for sample in data.samples if sample.category == category]
    train = [sample for sample in samples if sample.split == "train"]
    test = [sample for sample in samples if sample.split == "test"]
    layout = backbone.layout(size)

    def features_of(chosen: list) -> torch.Tensor:
        return torch.cat(
            [
                layout.flatten(backbone(load_images(data, chosen[i : i + 16], size)))
                for i in range(0, len(chosen), 16)
            ]
        )

    model = FeatureGMM(layout, **options).eval()
    features = features_of(train)
    model.fit_category(0, features)
    labels = torch.zeros(len(train), dtype=torch.long)
    model.calibrate(zip(features.split(16), labels.split(16), strict=True))
    with torch.no_grad():
        parts = [
            model.score(model(x), (size, size)) for x in features_of(test).split(16)
        ]
    masks = [data.mask(sample) for sample in test]
    image = auroc(
        torch.cat([part.image for part in parts]).numpy(),
        np.array([sample.is_anomaly for sample in test]),
    )
    assert image is not None
    if any(mask is None for mask in masks):
        return image, None
    resized = np.stack([resize_mask(mask, size) for mask in masks if mask is not None])
    maps = torch.cat([part.maps for part in parts])
    return image, auroc(maps.flatten().numpy(), resized.flatten())


if __name__ == "__main__":
    main()
