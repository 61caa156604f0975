"""Time a training step of the flow-GMM against the floor of its matrix products.

    python benchmarks/speed/training_step.py [THREADS]

The floor is the time the machine would take for the step's matrix products alone, at
the rate of one large product measured in the same run. Prints ratios; asserts nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from avalanche_ad.features import FeatureLayout
from avalanche_ad.models import FlowGMM
from avalanche_ad.training import FlowGMMLoss, make_optimizer

LAYOUT = FeatureLayout(((32, 32, 45), (16, 16, 45)))  # the filter bank at 128 px
COUPLINGS, CONDITION, BATCH, CATEGORIES = 6, 32, 8, 15


def median_seconds(step: Callable[[], object], repeats: int = 15) -> float:
    """Return the median time of a call, after two to warm up."""
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return sorted(times[2:])[repeats // 2]


def product_rate() -> float:
    """Measure and print the machine's rate of one large product, FLOP a second."""
    a = torch.randn(1024, 1024)
    rate = 2 * 1024**3 / median_seconds(lambda: a @ a)
    print(f"one 1024³ product: {rate / 1e9:.0f} GFLOP/s")
    return rate


def step_flops(fraction: float) -> float:
    """Return the floating-point operations of a step's matrix products."""
    total = 0.0
    for height, width, channels in LAYOUT.levels:
        positions = BATCH * max(1, round(fraction * height * width))
        passive, active = channels - channels // 2, channels // 2
        inputs = passive + CONDITION
        hidden = 2 * inputs
        block = inputs * hidden + hidden * 2 * active + channels * channels
        centers = CATEGORIES + 10
        total += positions * (COUPLINGS * block + centers * channels) * 2
    return 3 * total  # forward, and twice as much backward


def main() -> None:
    """Print a row per share of positions."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    rate = product_rate()
    print("| positions | MFLOP a step | ms a step | floor ms | times the floor |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for fraction in (1.0, 0.25, 0.125):
        model = FlowGMM(
            LAYOUT,
            CATEGORIES,
            couplings=COUPLINGS,
            condition_channels=CONDITION,
            position_fraction=fraction,
        )
        model.add_categories(range(CATEGORIES))
        optimizer, criterion = make_optimizer(model), FlowGMMLoss()
        x, y = torch.randn(BATCH, LAYOUT.size), torch.arange(BATCH)

        def step(
            model: FlowGMM = model,
            optimizer: torch.optim.Optimizer = optimizer,
            criterion: FlowGMMLoss = criterion,
            x: torch.Tensor = x,
            y: torch.Tensor = y,
        ) -> None:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

        seconds, flops = median_seconds(step), step_flops(fraction)
        floor = flops / rate
        print(
            f"| {fraction:g} | {flops / 1e6:.0f} | {seconds * 1e3:.1f} "
            f"| {floor * 1e3:.1f} | {seconds / floor:.1f} |"
        )


if __name__ == "__main__":
    main()
