"""What every shipped strategy must do on a stream of two experiences.

The tests know no strategy by name: a new file in ``strategies/`` is tested as it is.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.supervised import JointTraining
from avalanche.training.templates.base import BaseTemplate
from torch.utils.data import DataLoader

from avalanche_ad.evaluation.names import metric_names
from avalanche_ad.experiments import runner
from avalanche_ad.experiments.recipe import list_recipes, load_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.models.base import evaluating
from avalanche_ad.models.storage import load_model
from avalanche_ad.training.plugins import CalibrationPlugin, FiniteLossPlugin

CATEGORIES = (("bolt", "brush"), ("carpet_weave", "gear"))
# So many images that every memory is used in the second experience, and a last
# minibatch of one image, since MIR replays no category that is in it.
STREAM = ("synthetic.train_images=26", "training.batch_size=17")


class Stop(KeyboardInterrupt):
    """An interruption by the user, after all was learned and nothing saved."""


@dataclass
class Watched:
    """A run that was stopped at its very end, and the run that resumed from there.

    ``known`` and ``ends`` are the model's categories and state after each call of
    training, ``starts`` its state before the first step of each.
    """

    folder: Path
    recipe: Any
    strategy: Any = None
    benchmark: Any = None
    rows: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    known: list[list[int]] = field(default_factory=list)
    starts: list[dict[str, torch.Tensor]] = field(default_factory=list)
    ends: list[dict[str, torch.Tensor]] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    metrics_csv: bytes = b""
    resumed: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def joint(self) -> bool:
        return isinstance(self.strategy, JointTraining)

    @property
    def results(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((self.folder / "results.json").read_text())
        return read

    def batches(self):
        for experience in self.benchmark.test_stream:
            yield from DataLoader(experience.dataset, batch_size=7)


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module", params=list_recipes("strategies"))
def watched(request, cache, tiny_stream, tmp_path_factory):
    """Run a strategy, stop it after its last experience, and resume it."""
    recipe = load_experiment(str(tiny_stream), request.param, STREAM)
    seen = Watched(tmp_path_factory.mktemp("runs") / request.param, recipe.strategy)
    build_strategy, build_benchmark = runner.build_strategy, runner.build_benchmark
    before_training_exp = BaseTemplate._before_training_exp

    def strategy(*args, **kwargs):
        seen.strategy = build_strategy(*args, **kwargs)
        return seen.strategy

    def benchmark(*args, **kwargs):
        seen.benchmark = build_benchmark(*args, **kwargs)
        return seen.benchmark

    def begin(self, *args, **kwargs):
        before_training_exp(self, *args, **kwargs)
        seen.starts.append(state_of(self.model))

    def after_task(task, rows):
        model = seen.strategy.model
        seen.rows[task] = list(rows)
        seen.known.append(model.known_categories.tolist())
        seen.ends.append(state_of(model))
        seen.gradients.append(
            {
                name: parameter.grad.clone()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
        )
        if task == len(CATEGORIES) - 1:
            partial = seen.folder.with_name(seen.folder.name + ".partial")
            seen.metrics_csv = (partial / "metrics.csv").read_bytes()
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "build_strategy", strategy)
        patch.setattr(runner, "build_benchmark", benchmark)
        patch.setattr(BaseTemplate, "_before_training_exp", begin)
        with pytest.raises(Stop):
            runner.run_experiment(
                recipe, seen.folder, cache=cache, after_task=after_task
            )
    runner.run_experiment(
        recipe,
        seen.folder,
        cache=cache,
        after_task=lambda task, rows: seen.resumed.update({task: list(rows)}),
    )
    return seen


def test_categories_arrive_experience_by_experience(watched):
    first, every = [0, 1], [0, 1, 2, 3]
    model = watched.strategy.model
    if getattr(model, "categories_at_start", False):
        first = every
    assert watched.known == ([every] if watched.joint else [first, every])
    assert model.num_categories == 4


def test_every_metric_of_every_category_is_finite(watched):
    for task, rows in watched.rows.items():
        expected = [name for names in CATEGORIES[: task + 1] for name in names]
        assert [row["category"] for row in rows] == expected
        assert {row["training_experience"] for row in rows} <= {task, 0}
        for row in rows:
            for name in metric_names():
                assert isinstance(row[name], float), name
    lines = watched.metrics_csv.decode().splitlines()
    for names in CATEGORIES:
        for name in names:
            assert any(name in line for line in lines), name
    final = watched.results["final"]
    assert set(final) == set(metric_names())
    assert all(isinstance(value, float) for value in final.values())


def test_the_loss_is_watched_and_all_stays_finite(watched):
    kinds = [type(plugin) for plugin in watched.strategy.plugins]
    assert CalibrationPlugin in kinds
    assert FiniteLossPlugin in kinds or not watched.strategy.train_epochs
    for name, value in watched.ends[-1].items():
        assert bool(value.isfinite().all()), name


def test_all_that_had_a_gradient_moved(watched):
    """In the last experience; without training steps, some statistic changed."""
    end = watched.ends[-1]
    if not watched.strategy.train_epochs:
        before = watched.ends[-2]
        changed = [
            name
            for name, value in end.items()
            if value.shape != before[name].shape or not torch.equal(value, before[name])
        ]
        assert changed
        return
    start = watched.starts[-1]
    pulled = [name for name, grad in watched.gradients[-1].items() if grad.any()]
    assert pulled
    for name in pulled:
        assert not torch.equal(end[name], start[name]), name


@pytest.fixture(scope="module")
def fine_tuned(cache, tiny_stream, tmp_path_factory):
    """The state of a model that was trained on without anything else."""
    recipe = load_experiment(str(tiny_stream), "naive", STREAM)
    folder = tmp_path_factory.mktemp("runs") / "fine_tuned"
    runner.run_experiment(recipe, folder, cache=cache)
    return load_model(folder)[0].state_dict()


def test_it_does_something(watched, fine_tuned):
    """A plugin without effect leaves the run as it is without it, bit for bit."""
    end = watched.ends[-1]
    same = set(end) == set(fine_tuned) and all(
        torch.equal(value, fine_tuned[name]) for name, value in end.items()
    )
    recipe = watched.recipe
    nothing = not recipe.plugins and recipe.strategy.endswith(".Naive")
    assert same == nothing


def test_a_copy_of_the_model_is_the_model(watched):
    model = watched.strategy.model
    twin = copy.deepcopy(model)
    with evaluating(model), evaluating(twin):
        for batch in watched.batches():
            assert torch.equal(model(batch[0]), twin(batch[0]))


def test_no_graph_stays_on_the_model(watched):
    for module in watched.strategy.model.modules():
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                assert value.grad_fn is None, name


def test_the_saved_model_scores_alike(watched):
    model = watched.strategy.model
    loaded, description = load_model(watched.folder)
    size = (description["mask_size"],) * 2
    with evaluating(model):
        for batch in watched.batches():
            ours = model.score(model(batch[0]), size)
            theirs = loaded.score(loaded(batch[0]), size)
            assert torch.equal(ours.category, theirs.category)
            torch.testing.assert_close(ours.maps, theirs.maps, rtol=0, atol=0)


def test_an_interrupted_run_ends_as_the_other(watched):
    last = len(CATEGORIES) - 1
    assert list(watched.resumed) == [last]
    assert watched.resumed[last] == watched.rows[last]
    assert (watched.folder / "metrics.csv").read_bytes() == watched.metrics_csv
    loaded, _ = load_model(watched.folder)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, watched.ends[-1][name]), name
    matrix = watched.results["matrix"]
    for name in metric_names():
        for task, rows in watched.rows.items():
            for experience, names in enumerate(CATEGORIES[: task + 1]):
                own = [row[name] for row in rows if row["category"] in names]
                mean = sum(own) / len(own)
                assert matrix[name][task][experience] == pytest.approx(mean)
