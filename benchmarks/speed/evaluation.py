"""Time the evaluation of mixtures an image, beside every mixture at every position.

    python benchmarks/speed/evaluation.py [CATEGORIES] [IMAGES]

Processor time on one thread, features of 256 px of the embedded backbone, made up.
``feature_gmm`` has 10 Gaussians a category, ``flow_gmm`` 20 aligned ones and a flow of
6 couplings. The second column evaluates all categories at all positions instead, by
the same kernel; the floor is one category's products at the speed of a square one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from avalanche_ad import FeatureGMM, FlowGMM
from avalanche_ad.features import FeatureLayout
from avalanche_ad.models.gaussians import CategoryMixtures

SIDE, WIDTH = 32, 128


def milliseconds(call: Callable[[], object], images: int) -> float:
    """Return the least processor time of five calls, an image."""
    found = []
    for _ in range(5):
        began = time.process_time()
        call()
        found.append(time.process_time() - began)
    return 1e3 * min(found) / images


def fill(mixture: CategoryMixtures, means: torch.Tensor) -> None:
    """Give each category a mixture of equal weights around its means (C, K, D)."""
    components = means.shape[1]
    for category, own in enumerate(means):
        roots = torch.randn(components, WIDTH, WIDTH).triu(1) * 0.01
        roots += torch.eye(WIDTH)
        mixture.put(category, torch.full((components,), 1 / components), own, roots)


def main() -> None:
    """Print a row a model."""
    given, defaults = sys.argv[1:], ["12", "16"]
    categories, images = map(int, given + defaults[len(given) :])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layout = FeatureLayout(((SIDE, SIDE, WIDTH),))
    means = 3 * torch.randn(categories, 20, WIDTH)
    features = FeatureGMM(layout, categories, components=10)
    fill(features.mixtures.level(0), means[:, :10])
    flow = FlowGMM(
        layout,
        couplings=6,
        condition_channels=32,
        flow_start="rotation",
        score_kind="likelihood",
    )
    flow.add_categories(range(categories))
    places = torch.zeros(categories * 20, dtype=torch.long)
    moved = flow.latents_at(0, means.flatten(0, 1), places).view(means.shape)
    fill(flow.alignment.start(20, categories)[0], moved)
    category = torch.arange(images) * categories // images
    drawn = torch.randint(10, (images, SIDE**2))
    x = (means[category[:, None], drawn] + torch.randn(images, SIDE**2, WIDTH)).flatten(
        1
    )
    square = torch.randn(1024, 1024)
    rate = 2 * 1024**3 / milliseconds(lambda: square @ square, 1)
    print("| model | evaluation, ms | all categories, ms | ratio | floor, ms |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with torch.no_grad():
        for model, mixture in (
            (features, features.mixtures.level(0)),
            (flow, flow.alignment.mixture(0)),
        ):
            model.eval().calibrate([(x, category)])
            known, components = model.known_categories, mixture.means.shape[1]
            own = milliseconds(lambda m=model: m.score(m(x), (256, 256)), images)
            every = milliseconds(
                lambda m=mixture, k=known: m.log_likelihood(x.view(-1, WIDTH), k),
                images,
            )
            floor = 2 * SIDE**2 * components * WIDTH**2 / rate
            print(
                f"| {model.kind} | {own:.1f} | {every:.1f} | {every / own:.1f} "
                f"| {floor:.1f} |"
            )


if __name__ == "__main__":
    main()
