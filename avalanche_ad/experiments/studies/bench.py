"""What an experiment measures on: a stream, and strategies to learn it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.supervised import JointTraining
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from avalanche_ad.benchmarks import AnomalyBenchmark
from avalanche_ad.datasets.roots import Roots
from avalanche_ad.errors import (
    DatasetError,
    RecipeError,
    TrainingError,
)
from avalanche_ad.evaluation.continual import mean_defined
from avalanche_ad.evaluation.diagnostics import CategoryEvaluation, evaluate_categories
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    build_model,
    build_strategy,
    open_data,
)
from avalanche_ad.experiments.progress import RunProgress
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.models import AnomalyModel
from avalanche_ad.models.density_model import ScoreKind
from avalanche_ad.models.flow_model import FlowModel
from avalanche_ad.recipes import ExperimentRecipe
from avalanche_ad.training.dynamic import features_by_category

__all__ = [
    "Bench",
    "Measurements",
    "Load",
    "Pair",
    "flow_model_of",
    "mean_pairs",
    "open_bench",
]

Measurements = dict[str, Any]
"""What one seed gave, as JSON values."""

Pair = tuple[float | None, float | None]
"""Image and pixel AUROC."""

Load = Callable[[str], ExperimentRecipe]
"""Gives the recipe of a strategy on the stream by the strategy's name."""


@dataclass
class Bench:
    """What an experiment measures on: a stream, and strategies to learn it with.

    :param recipe: the benchmark and the strategy asked for.
    :param load: gives the recipe of another strategy on that benchmark by its name.
    :param stream: the benchmark's stream.
    :param folder: where experiments that consist of whole runs keep them.
    :param data_root: the data set's folder, or several; the recipe's own otherwise.
    :param device: where to compute.
    :param cache: the feature cache.
    :param progress: a progress bar.

    >>> from functools import partial
    >>> from avalanche_ad import anomaly_benchmark
    >>> from avalanche_ad.datasets import SyntheticAD
    >>> from avalanche_ad.recipes.load import load_experiment
    >>> load = partial(load_experiment, "synthetic_2x2")
    >>> counts = {"train_images": 2, "test_normals": 1, "test_anomalies": 1}
    >>> data = SyntheticAD(64, categories=["bolt", "gear"], **counts)
    >>> stream = anomaly_benchmark(data, n_experiences=2, image_size=64)
    >>> rest = Path("out"), None, torch.device("cpu"), FeatureCache()
    >>> bench = Bench(load("naive"), load, stream, *rest)
    >>> bench.tasks, bench.categories(1), bench.seen(1)
    (2, [1], [0, 1])
    """

    recipe: ExperimentRecipe
    load: Load
    stream: AnomalyBenchmark
    folder: Path
    data_root: Roots
    device: torch.device
    cache: FeatureCache
    progress: RunProgress | None = None
    _features: dict[int, Tensor] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        """How many experiences the stream has."""
        return len(self.stream.experiences)

    def categories(self, task: int) -> list[int]:
        """Return the indices of an experience's categories."""
        return sorted(self.stream.train_stream[task].classes_in_this_experience)

    def seen(self, task: int) -> list[int]:
        """Return the indices of the categories of all experiences up to one."""
        return [c for number in range(task + 1) for c in self.categories(number)]

    def strategy(self, seed: int, plugins: Sequence[Any] = ()) -> Any:
        """Build the strategy anew, as ``avalanche-ad run`` does.

        :raises RecipeError: for joint training, which learns all tasks in one call.
        """
        RNGManager.set_random_seeds(seed)
        model, _ = build_model(self.recipe.benchmark, self.stream, seed)
        strategy = build_strategy(
            self.recipe, model, self.device, [], [], self.stream.mask_size, plugins
        )
        if isinstance(strategy, JointTraining):
            raise RecipeError(
                f"strategy '{self.recipe.strategy_name}' learns all tasks at once, and "
                "this experiment follows them one by one: take another, such as naive"
            )
        return strategy

    def learn(
        self,
        strategy: Any,
        first: int = 0,
        last: int | None = None,
    ) -> Iterator[int]:
        """Learn experiences one after the other; yield each one's number when it is.

        :param strategy: of :meth:`strategy`.
        :param first: number of the first one.
        :param last: number of the last one, the stream's by default.
        """
        last = self.tasks - 1 if last is None else last
        for task in range(first, last + 1):
            strategy.train(self.stream.train_stream[task], num_workers=0)
            yield task

    def normals(self, categories: Sequence[int]) -> dict[int, Tensor]:
        """Return features of the training images of categories."""
        if not self._features:
            parts: dict[int, list[Tensor]] = {}
            # a data loader draws random numbers too
            with torch.random.fork_rng(devices=[]):
                for experience in self.stream.train_stream:
                    for category, x in features_by_category(experience.dataset).items():
                        parts.setdefault(category, []).append(x)
            self._features = {c: torch.cat(every) for c, every in parts.items()}
        return {c: self._features[c].to(self.device) for c in categories}

    def calibrate(self, model: AnomalyModel, categories: Sequence[int]) -> None:
        """Set the constants of categories' scores on their training images."""
        count = self.recipe.benchmark.training.calibration_images
        model.calibrate(
            (part, torch.full((len(part),), category, device=self.device))
            for category, x in self.normals(categories).items()
            for part in torch.split(x[:count], 16)
        )

    def evaluate(
        self,
        model: AnomalyModel,
        tasks: Sequence[int],
        kinds: Sequence[ScoreKind] | None = None,
        oracle: bool = False,
    ) -> list[CategoryEvaluation]:
        """Score the test images of experiences, see :func:`evaluate_categories`."""
        held: ConcatDataset[Any] = ConcatDataset(
            [self.stream.test_stream[t].dataset for t in tasks]
        )
        # a data loader draws random numbers too
        with torch.random.fork_rng(devices=[]):
            batches = list(DataLoader(held, batch_size=16))
        return evaluate_categories(
            model, batches, kinds, device=self.device, oracle=oracle
        )

    def auroc(
        self,
        model: AnomalyModel,
        tasks: Sequence[int],
        kind: ScoreKind | None = None,
    ) -> Pair:
        """Return image and pixel AUROC, means over the categories of experiences.

        :return: the second is ``None`` where no category has a mask.
        :raises DatasetError: when no category has both normal and anomalous images.
        """
        found = self.evaluate(model, tasks, None if kind is None else (kind,))
        image = mean_defined(one.image_auroc for one in found)
        pixel = mean_defined(one.pixel_auroc for one in found)
        return _needed(image), pixel

    def run(self, recipe: ExperimentRecipe, seed: int) -> dict[str, Any]:
        """Make a whole run of a recipe, or read it where it was made before."""
        name = recipe.strategy_name.replace(" ", "_")
        folder = self.folder / "runs" / f"{name}-seed{seed}"
        return run_experiment(
            recipe,
            folder,
            data_root=self.data_root,
            seed=seed,
            device=self.device,
            cache=self.cache,
        )

    def summaries(
        self, model: AnomalyModel, tasks: Sequence[int], kinds: Sequence[ScoreKind]
    ) -> list[tuple[Measurements, list[CategoryEvaluation]]]:
        """Return, for every kind of score, means over categories and what they are of.

        The images pass the model once for all kinds.
        """
        every = self.evaluate(model, tasks, kinds)
        made = []
        for kind in kinds:
            found = [one for one in every if one.kind == kind]
            means: Measurements = {"kind": kind}
            for name in ("image_auroc", "pixel_auroc", "fpr95"):
                means[name] = mean_defined(getattr(one, name) for one in found)
            _needed(means["image_auroc"])
            made.append((means, found))
        return made

    def report(self, what: str, done: int, total: int) -> None:
        """Show how far the experiment is."""
        if self.progress is not None:
            self.progress.report(what, done, total)


def open_bench(
    load: Load, strategy: str, folder: Path, roots: Sequence[Path] = ()
) -> Bench:
    """Open a strategy's stream, to measure on without a run or a command, on the CPU.

    :param load: see :class:`Bench`.
    :param strategy: its name.
    :param folder: see :class:`Bench`.
    :param roots: the data set's folders; the recipe's own otherwise.
    """
    recipe = load(strategy)
    given, device = list(roots) or None, torch.device("cpu")
    data = open_data(recipe.benchmark, given)
    backbone, cache = build_backbone(recipe.benchmark), FeatureCache()
    stream = build_benchmark(recipe.benchmark, data, backbone, cache, device)
    return Bench(recipe, load, stream, folder, given, device, cache)


def mean_pairs(pairs: Sequence[Pair]) -> list[float | None]:
    """Return the mean image and pixel AUROC of pairs of them, where there are any."""
    return [mean_defined(pair[side] for pair in pairs) for side in (0, 1)]


def _needed(image_auroc: float | None) -> float:
    if image_auroc is None:
        raise DatasetError(
            "no AUROC: an experience's test images are all normal or all anomalous, or "
            "there are none; this experiment needs both"
        )
    return image_auroc


def flow_model_of(strategy: Any) -> FlowModel:
    """Return a strategy's model, which has a flow.

    :raises TrainingError: for another model.
    """
    model = strategy.model
    if not isinstance(model, FlowModel):
        raise TrainingError(
            "this experiment looks into the flow and the mixture of a model, and "
            f"{model.kind} has no flow: use the [model] type of a benchmark that comes "
            "with the package"
        )
    return model
