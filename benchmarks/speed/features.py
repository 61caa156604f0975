"""Time a backbone, alone and from images on disk to the feature cache.

``python benchmarks/speed/features.py [NAME] [--weights FILE] [--size 128]``

The floor is what the same number of operations takes as one matrix product.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from avalanche_ad.datasets import SyntheticAD, open_dataset
from avalanche_ad.datasets.writing import write_mvtec_layout
from avalanche_ad.features import FeatureCache, make_backbone


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest of several timings, the first call left out."""
    work()
    timings = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        timings.append(time.perf_counter() - start)
    return min(timings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone", nargs="?", default="embedded")
    parser.add_argument("--weights", help="of backbone embedded")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = {"weights": options.weights} if options.weights else {}
    started = time.perf_counter()
    backbone = make_backbone(options.backbone, **weights)
    loading = time.perf_counter() - started
    generator = torch.Generator().manual_seed(0)
    shape = (options.images, 3, options.size, options.size)
    images = torch.rand(shape, generator=generator)

    def run() -> list[list[Tensor]]:
        return [backbone(batch) for batch in images.split(options.batch)]

    alone = seconds(run) / options.images
    with FlopCounterMode(display=False) as counter:
        run()
    operations = counter.get_total_flops() / options.images
    square = torch.rand(1024, 1024, generator=generator)
    peak = 2 * 1024**3 / seconds(lambda: square @ square)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "images"
        drawn = SyntheticAD(
            options.size, 0, options.images, 1, 1, categories=["terrazzo"]
        )
        write_mvtec_layout(drawn, folder)
        data = open_dataset("folder", folder)
        train = [sample for sample in data.samples if sample.split == "train"]
        timings = []
        for number in range(4):
            cache = FeatureCache(Path(root) / f"cache{number}")
            started = time.perf_counter()
            cache.features(backbone, data, train, options.size)
            timings.append(time.perf_counter() - started)
    cached = min(timings[1:]) / options.images
    print(f"{1 / cached:8.1f} images/s from disk to cache")
    print(f"{1 / alone:8.1f} images/s, the backbone alone")
    print(f"{operations / 1e6:8.1f} MFLOP an image in convolutions and whitening")
    print(f"{operations / alone / 1e9:8.2f} GFLOP/s")
    print(f"{alone * peak / operations:8.1f} times the time of one matrix product")
    print(f"{loading * 1e3:8.1f} ms to load")


if __name__ == "__main__":
    main()
