"""Say what share of a strategy's training every one of its plugins takes.

    python benchmarks/speed/alignment.py [STRATEGY] [TASKS] [THREADS]

Processor time of the first tasks of ``synthetic_5x3``, a category's feature statistics
(their EM) apart from the plugin that takes them first. Prints shares; asserts nothing.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    build_model,
    build_strategy,
    open_data,
)
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import load_experiment
from avalanche_ad.training.plugins import CalibrationPlugin
from avalanche_ad.training.plugins.statistics_keeper import StatisticsKeeper

STATISTICS, REST = "feature statistics", "training itself"


class Clock:
    """Processor time by label; what is timed inside another call is not that call's."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open: list[float] = []

    def timed(self, call: Callable[..., Any], label: str) -> Callable[..., Any]:
        """Return the call, timed under a label."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self._open.append(0.0)
            began = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.process_time() - began
                self.seconds[label] += spent - self._open.pop()
                if self._open:
                    self._open[-1] += spent

        return run

    def watch(self, plugins: list[Any]) -> None:
        """Time all hooks of plugins under the names of their classes."""
        for plugin in plugins:
            for name in dir(plugin):
                if name.startswith(("before_", "after_")):
                    hook = getattr(plugin, name)
                    setattr(plugin, name, self.timed(hook, type(plugin).__name__))
            if isinstance(plugin, StatisticsKeeper):
                plugin.keep = self.timed(plugin.keep, STATISTICS)  # type: ignore[method-assign]


def main() -> None:
    """Print a table of shares, a column a task."""
    given, defaults = sys.argv[1:], ["gmm_alignment", "3", "1"]
    strategy_name, tasks, threads = given + defaults[len(given) :]
    torch.set_num_threads(int(threads))
    recipe = load_experiment("synthetic_5x3", strategy_name)
    stream = build_benchmark(
        recipe.benchmark,
        open_data(recipe.benchmark, None),
        build_backbone(recipe.benchmark),
        FeatureCache(),
        torch.device("cpu"),
    )
    model, _ = build_model(recipe.benchmark, stream, 0)
    strategy = build_strategy(
        recipe, model, torch.device("cpu"), [], [], stream.mask_size
    )
    clock = Clock()
    own = len(recipe.strategy.plugins)
    calibration = [p for p in strategy.plugins if isinstance(p, CalibrationPlugin)]
    clock.watch([*strategy.plugins[:own], *calibration])
    train = clock.timed(strategy.train, REST)
    columns = []
    for experience in stream.train_stream[: int(tasks)]:
        clock.seconds.clear()
        train(experience, num_workers=0)
        columns.append(dict(clock.seconds))
    names = [name for name in columns[-1] if name != REST]
    print(
        f"| {strategy_name} |"
        + "".join(f" task {i + 1} |" for i in range(len(columns)))
    )
    print("| --- |" + " ---: |" * len(columns))
    for name in [REST, *names]:
        cells = [f" {one[name] / sum(one.values()):.1%} |" for one in columns]
        print(f"| {name} |" + "".join(cells))
    print("| seconds |" + "".join(f" {sum(one.values()):.1f} |" for one in columns))


if __name__ == "__main__":
    main()
