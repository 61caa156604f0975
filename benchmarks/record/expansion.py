"""Measure the expansion effect on a stream's first task, and print a table.

Usage: ``python benchmarks/record/expansion.py [BENCHMARK] [SEEDS] [KEY=VALUE …]``, the
last as ``avalanche-ad run --set`` takes them.
"""

from __future__ import annotations

import sys

import torch
from avalanche.training.determinism.rng_manager import RNGManager
from torch.utils.data import DataLoader

from avalanche_ad.evaluation.diagnostics import expansion_effect
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    build_model,
    build_strategy,
    open_data,
)
from avalanche_ad.experiments.recipe import load_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.models import FlowGMM


def main() -> None:
    """Train task 0 per seed, add task 1's centres, and compare the scores."""
    name = sys.argv[1] if len(sys.argv) > 1 else "synthetic_5x3"
    seeds = [int(s) for s in (sys.argv[2] if len(sys.argv) > 2 else "0,1,2").split(",")]
    recipe = load_experiment(name, "naive", sys.argv[3:])
    device = torch.device("cpu")
    stream = build_benchmark(
        recipe.benchmark,
        open_data(recipe.benchmark, None),
        build_backbone(recipe.benchmark),
        FeatureCache(),
        device,
    )
    first = stream.train_stream[0]
    test = stream.test_stream[0].dataset
    arriving = sorted(stream.train_stream[1].classes_in_this_experience)
    print("| seed | score | image AUROC | pixel AUROC | normals | anomalies |")
    print("| ---: | --- | --- | --- | --- | --- |")
    for seed in seeds:
        RNGManager.set_random_seeds(seed)
        model, _ = build_model(recipe.benchmark, stream, seed)
        assert isinstance(model, FlowGMM)
        build_strategy(recipe, model, device, [], [], stream.mask_size).train(first)
        for effect in expansion_effect(model, DataLoader(test, 16), arriving):
            cells = [
                f"{before:.4f} → {after:.4f}"
                for before, after in (
                    effect.image_auroc,
                    effect.pixel_auroc,
                    effect.normal_score,
                    effect.anomaly_score,
                )
            ]
            print(f"| {seed} | {effect.kind} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
