"""Time the filter bank and compare it with its oriented filters alone.

``python benchmarks/speed/features.py [--size 128] [--images 64] [--threads 2]``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from avalanche_ad.features import FilterBank


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
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (options.images, 3, options.size, options.size)
    images = torch.rand(shape, generator=generator)
    bank = FilterBank()

    def run() -> list[list[Tensor]]:
        return [bank(batch) for batch in images.split(options.batch)]

    spent = seconds(run) / options.images
    with FlopCounterMode(display=False) as counter:
        run()
    operations = counter.get_total_flops() / options.images
    # The floor: the filters alone, over pixels that one convolution reads at once.
    light = images[: options.batch, :1]
    filters = bank.get_buffer("filters")
    floor = seconds(lambda: conv2d(light, filters, padding=4)) / len(light) * 4 / 3
    print(f"{1 / spent:8.1f} images/s, {spent * 1e3:.2f} ms an image")
    print(f"{operations / 1e6:8.1f} MFLOP an image in convolutions and whitening")
    print(f"{operations / spent / 1e9:8.2f} GFLOP/s")
    print(f"{spent / floor:8.1f} times the time of the oriented filters alone")


if __name__ == "__main__":
    main()
