"""Time a training step of the context flow against the floor of its matrix products.

    python benchmarks/speed/context_flow_step.py [THREADS]

Three categories, maps of 32x32 positions and 128 channels, as of the embedded backbone
at 256 pixels. Operations are counted by torch; the floor is the time that the machine
would take for them at the rate of one large product measured in the same run. Prints
ratios; asserts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from training_step import median_seconds, product_rate

from avalanche_ad.features import FeatureLayout
from avalanche_ad.models import ContextFlowGMM

LAYOUT = FeatureLayout(((32, 32, 128),))
CATEGORIES, IMAGES = 3, 12


def operations(step: Callable[[], object]) -> int:
    """Return the floating-point operations of a call's matrix products."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def main() -> None:
    """Print a row per minibatch and part of the step."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    rate = product_rate()
    print("| images a step | part | MFLOP | ms | floor ms | times the floor |")
    print("| ---: | :--- | ---: | ---: | ---: | ---: |")
    model = ContextFlowGMM(LAYOUT)
    features = {c: torch.randn(IMAGES, LAYOUT.size) for c in range(CATEGORIES)}
    model.add_categories(range(CATEGORIES), features)
    model.train()
    for images in (8, 24):
        x = torch.randn(images, LAYOUT.size)
        target = torch.arange(images) % CATEGORIES
        defects = torch.randn(images, LAYOUT.size)
        where = torch.zeros(images, 256, 256, dtype=torch.bool)
        where[:, 80:140, 60:120] = True

        def flow(x: Tensor = x, target: Tensor = target) -> None:
            model.loss(model(x), target).mean().backward()

        def critic(
            x: Tensor = x,
            target: Tensor = target,
            defects: Tensor = defects,
            where: Tensor = where,
        ) -> None:
            model.defect_loss(x, target, defects, where).backward()

        for name, part in (("flow told from noise", flow), ("critic", critic)):
            seconds, flops = median_seconds(part), operations(part)
            floor = flops / rate
            print(
                f"| {images} | {name} | {flops / 1e6:.0f} | {seconds * 1e3:.0f} "
                f"| {floor * 1e3:.0f} | {seconds / floor:.1f} |"
            )


if __name__ == "__main__":
    main()
