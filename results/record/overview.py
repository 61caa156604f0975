"""Draw the README's picture: what strategies still see of the first task's defects.

    python results/record/overview.py RUNS_FOLDER STRATEGY,STRATEGY,… OUTPUT.png

RUNS_FOLDER is what ``avalanche-ad compare --benchmark synthetic_5x3`` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from avalanche_ad.experiments.build import open_data
from avalanche_ad.experiments.results import read_results
from avalanche_ad.features import make_backbone
from avalanche_ad.models.storage import load_model
from avalanche_ad.recipes import load_experiment


def main() -> None:
    """Draw a column per image and a row per strategy."""
    runs, names, target = Path(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3])
    recipe = load_experiment("synthetic_5x3", names[0]).benchmark
    data = open_data(recipe, None)
    first = read_results(runs / f"{names[0]}-seed0")["categories"]
    chosen = []
    for category in [*first[0], *first[1], first[-1][0]]:
        anomalies = [s for s in data.samples if s.category == category and s.is_anomaly]
        # the middle one by size of its defect: neither the easiest nor the hardest
        anomalies.sort(key=lambda sample: int(data.mask(sample).sum()))
        chosen.append(anomalies[len(anomalies) // 2])

    figure = Figure(figsize=(1.5 * len(chosen) + 0.9, 1.5 * (len(names) + 1) + 0.3))
    axes = figure.subplots(len(names) + 1, len(chosen))
    pixels = np.stack([data.image(sample) for sample in chosen])
    for column, sample in enumerate(chosen):
        axes[0, column].imshow(pixels[column])
        axes[0, column].contour(data.mask(sample), [0.5], colors="red", linewidths=1)
        axes[0, column].set_title(sample.category.replace("_", " "), fontsize=9)
    axes[0, 0].set_ylabel("image, defect", fontsize=9)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for row, name in enumerate(names, start=1):
        model, description = load_model(runs / f"{name}-seed0")
        backbone = description["backbone"]
        model.attach_backbone(
            make_backbone(backbone["backbone"], **backbone["options"]),
            description["image_size"],
            description["mask_size"],
        )
        auroc = read_results(runs / f"{name}-seed0")["final"]["image_auroc"]
        maps = model.predict(images).maps.numpy()
        for column, score_map in enumerate(maps):
            axes[row, column].imshow(score_map, cmap="inferno")
        axes[row, 0].set_ylabel(f"{name}\nimage AUROC {auroc:.2f}", fontsize=9)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout(pad=0.4)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=100)
    # 200 colours: a fifth of the bytes, and hardly a difference to be seen
    with Image.open(target) as image:
        few = image.convert("RGB").quantize(200, Image.Quantize.FASTOCTREE)
    few.save(target, optimize=True)


if __name__ == "__main__":
    main()
