"""Time the exact metrics against scikit-learn and a threshold-by-threshold AUPRO.

Run ``python benchmarks/speed/metrics.py [MEGAPIXELS]``. Both columns come from the same
run, so the ratio carries over to other machines better than the seconds do.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from avalanche_ad.evaluation.detection import aupro, binary_metrics, pixel_metrics

SIDE = 256
THRESHOLDS = 100


def draw(
    megapixels: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    generator = np.random.default_rng(0)
    images = max(2, round(megapixels * 1e6 / SIDE**2))
    masks = np.zeros((images, SIDE, SIDE), dtype=np.bool_)
    for image in range(0, images, 2):  # every other image is normal
        for row, column in generator.integers(0, SIDE - 40, size=(3, 2)):
            height, width = generator.integers(8, 40, size=2)
            masks[image, row : row + height, column : column + width] = True
    maps = generator.normal(size=masks.shape).astype(np.float32)
    maps += masks * np.float32(2)
    return maps, masks


def scikit_learn(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> int:
    roc_auc_score(labels, scores)
    average_precision_score(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    return int(np.argmax(precision * recall / np.maximum(precision + recall, 1e-9)))


def stepped_aupro(
    score_maps: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]
) -> float:
    """Approximate AUPRO by evaluating evenly spaced thresholds, as is common."""
    regions, count = ndimage.label(
        masks, structure=np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
    )
    index = np.arange(1, count + 1)
    normal = score_maps[~masks]
    rate, overlap = [0.0], [0.0]
    for threshold in np.linspace(score_maps.max(), score_maps.min(), THRESHOLDS):
        above = score_maps >= threshold
        rate.append(float(np.mean(normal >= threshold)))
        overlap.append(float(np.mean(ndimage.mean(above, regions, index))))
    grid = np.append(np.array(rate)[np.array(rate) < 0.3], 0.3)
    heights = np.interp(grid, rate, overlap)
    return float(np.sum(np.diff(grid) * (heights[1:] + heights[:-1])) / 2 / 0.3)


def seconds(call: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    maps, masks = draw(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
    scores, labels = maps.ravel(), masks.ravel()
    ours, theirs = "ours (s)", "theirs (s)"
    print(f"{scores.size / 1e6:.1f} M pixels in {len(maps)} maps, float32\n")
    print(f"| measure | {ours} | against | {theirs} | ratio |\n|---|---|---|---|---|")
    for measure, call, against, other in [
        (
            "AUROC, AP, F1-max",
            lambda: binary_metrics(scores, labels),
            "scikit-learn, three calls",
            lambda: scikit_learn(scores, labels),
        ),
        (
            "AUPRO, exact",
            lambda: aupro(maps, masks),
            f"{THRESHOLDS} thresholds, approximate",
            lambda: stepped_aupro(maps, masks),
        ),
        (
            "all four, one sort",
            lambda: pixel_metrics(maps, masks),
            "both of the above",
            lambda: (scikit_learn(scores, labels), stepped_aupro(maps, masks)),
        ),
    ]:
        mine, base = seconds(call, 3), seconds(other, 1)
        ratio = base / mine
        print(f"| {measure} | {mine:.3f} | {against} | {base:.3f} | {ratio:.0f}× |")
    tracemalloc.start()
    pixel_metrics(maps, masks)
    peak = tracemalloc.get_traced_memory()[1]
    print(f"\npeak memory of all four: {peak / maps.nbytes:.1f} × the score maps")
    print(
        f"AUPRO exact {aupro(maps, masks):.6f}, "
        f"by {THRESHOLDS} thresholds {stepped_aupro(maps, masks):.6f}"
    )


if __name__ == "__main__":
    main()
