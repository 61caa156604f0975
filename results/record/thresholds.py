"""Measure how many new normals the default threshold calls anomalous.

Usage: ``python results/record/thresholds.py -s STRATEGY,… --out DIR``, with ``-b``,
``--data`` and ``--set KEY=VALUE`` as ``avalanche-ad run`` takes them. Runs that are
in DIR already are read, not made.

Prints a row for each strategy: of how many categories the number of test normals above
the threshold lies within the central 95 % interval of Binomial(normals, 1 − level), the
share of all test normals above it and what was expected of the held-out ones, and the
same share of the training normals, which the model was fitted to. ``--categories`` adds
a row for each category; ``--test-normals N`` draws so many of the procedural data set,
whatever the runs were evaluated on. Scores are as ``predict``'s, the category inferred.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binom

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.experiments.build import build_backbone, build_benchmark, open_data
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.models.anomaly_model import AnomalyModel
from avalanche_ad.models.storage import load_model
from avalanche_ad.models.thresholds import HeldOutScores
from avalanche_ad.recipes import load_experiment

HEADER = (
    "| stream | strategy | level | categories within | test normals above | expected | "
    "lowest | highest | training normals above |\n"
    "| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-b", "--benchmark", default="synthetic_5x3")
    parser.add_argument("-s", "--strategies", default="gmm_alignment")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--level", type=float, default=0.95)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--test-normals", type=int)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--categories", action="store_true", help="a row for each")
    arguments = parser.parse_args()
    print(HEADER)
    for strategy in arguments.strategies.split(","):
        recipe = load_experiment(arguments.benchmark, strategy, arguments.overrides)
        folder = arguments.out / f"{recipe.benchmark_name}-{strategy}-{arguments.seed}"
        if not (folder / "results.json").is_file():
            run_experiment(
                recipe, folder, data_root=arguments.data, seed=arguments.seed
            )
        if arguments.test_normals:
            more = f"synthetic.test_normals={arguments.test_normals}"
            recipe = load_experiment(
                arguments.benchmark, strategy, [*arguments.overrides, more]
            )
        benchmark = build_benchmark(
            recipe.benchmark,
            open_data(recipe.benchmark, arguments.data),
            build_backbone(recipe.benchmark),
            FeatureCache(),
            torch.device("cpu"),
        )
        rows = measured(folder, benchmark, arguments.level)
        stream = f"| {recipe.benchmark_name} | {strategy} |"
        if arguments.categories:
            for name, row in rows.items():
                tested = row["test"]
                print(
                    f"{stream} {name} | {'yes' if row['within'] else 'no'} | "
                    f"{tested.sum()} of {len(tested)} | {row['expected']:.3f} | "
                    f"n = {row['images']} | right category {row['inferred']:.2f} | "
                    f"{row['train'].mean():.3f} |"
                )
        every = list(rows.values())
        shares = [row["test"].mean() for row in every]
        print(
            f"{stream} {arguments.level:g} | "
            f"{sum(row['within'] for row in every)} of {len(every)} | "
            f"{np.concatenate([row['test'] for row in every]).mean():.3f} | "
            f"{np.mean([row['expected'] for row in every]):.3f} | "
            f"{min(shares):.3f} | {max(shares):.3f} | "
            f"{np.concatenate([row['train'] for row in every]).mean():.3f} |",
            flush=True,
        )


def measured(
    folder: Path, benchmark: AnomalyBenchmark, level: float
) -> dict[str, dict[str, object]]:
    """Return of each category which normals lie above its threshold, and what follows.

    :param folder: a finished run.
    :param benchmark: its stream.
    :param level: of the threshold.
    """
    model, description = load_model(folder)
    held_out = {
        name: HeldOutScores(scores) for name, scores in description["held_out"].items()
    }
    names = list(benchmark.category_names)
    limits = torch.tensor(
        [
            held_out[name].threshold(level) if name in held_out else np.inf
            for name in names
        ],
        dtype=torch.double,
    )
    size = benchmark.mask_size
    above: dict[str, dict[int, list[bool]]] = {"train": {}, "test": {}}
    right: dict[int, list[bool]] = {}
    streams = {"train": benchmark.train_stream, "test": benchmark.test_stream}
    for split, stream in streams.items():
        for experience in stream:
            loader = torch.utils.data.DataLoader(experience.dataset, batch_size=32)
            for batch in loader:
                x, y = batch[0], batch[1]
                if split == "test":
                    normal = ~batch[2].bool()
                    x, y = x[normal], y[normal]
                if len(x):
                    scores, category = judged(model, x, size)
                    found = scores.double() >= limits[category]
                    for true, flag, own in zip(
                        y.tolist(),
                        found.tolist(),
                        (category == y).tolist(),
                        strict=True,
                    ):
                        above[split].setdefault(true, []).append(flag)
                        right.setdefault(true, []).append(own)
    rows: dict[str, dict[str, object]] = {}
    for index, name in enumerate(names):
        tested = np.array(above["test"][index])
        low, high = binom.interval(0.95, len(tested), 1 - level)
        alarms = held_out[name].false_alarms(limits[index].item(), level)
        rows[name] = {
            "test": tested,
            "train": np.array(above["train"][index]),
            "within": bool(low <= tested.sum() <= high),
            "expected": alarms.expected,
            "images": alarms.images,
            "inferred": float(np.mean(right[index])),
        }
    return rows


@torch.no_grad()
def judged(
    model: AnomalyModel, x: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image scores and inferred categories."""
    scores = model.score(model(x), (size, size))
    return scores.image, scores.category


if __name__ == "__main__":
    main()
