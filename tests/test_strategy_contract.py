"""What every shipped strategy must do on a stream of two experiences.

The tests know no strategy by name: a new file in ``strategies/`` is tested as it is.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.supervised import JointTraining
from avalanche.training.templates import BaseSGDTemplate
from avalanche.training.templates.base import BaseTemplate
from avalanche.training.templates.problem_type import SupervisedProblem
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from avalanche_ad.errors import TrainingError
from avalanche_ad.evaluation.registry import metric_names
from avalanche_ad.experiments import beginning, run_state, runner
from avalanche_ad.features import FeatureCache
from avalanche_ad.models.evaluating import evaluating
from avalanche_ad.models.storage import load_model
from avalanche_ad.recipes import list_recipes, load_experiment
from avalanche_ad.training.plugins import CalibrationPlugin, GradientClippingPlugin

pytestmark = pytest.mark.slow

CATEGORIES = (("bolt", "brush"), ("carpet_weave", "gear"))
# So many images that every memory is used in the second experience, and a last
# minibatch of one image, since MIR replays no category that is in it.
STREAM = ("synthetic.train_images=26", "training.batch_size=17")
# The most that a recipe may ask of these: fewer Gaussians of fewer samples, and fewer
# epochs, are the same code in a fraction of the time.
AT_MOST = {"components": 4, "samples": 400, "epochs": 2}


def shrunken(stream, strategy):
    """Load a strategy on the stream, with less of what takes time."""
    recipe = load_experiment(str(stream), strategy, STREAM)
    parts = {
        f"plugins.{number}": plugin.arguments
        for number, plugin in enumerate(recipe.strategy.plugins)
    }
    parts |= {"model": recipe.strategy.model, "training": recipe.strategy.training}
    cut = [
        f"{part}.{key}={most}"
        for part, options in parts.items()
        for key, most in AT_MOST.items()
        if options.get(key, 0) > most
    ]
    return load_experiment(str(stream), strategy, (*STREAM, *cut))


class Stop(KeyboardInterrupt):
    """An interruption by the user, after all was learned and nothing saved."""


def poison(patch):
    """Make one value of every training minibatch not a number."""
    unpack = SupervisedProblem._unpack_minibatch

    def spoilt(strategy):
        unpack(strategy)
        if strategy.is_training:
            strategy.mbatch[0][0, 0] = float("nan")

    patch.setattr(SupervisedProblem, "_unpack_minibatch", spoilt)


def state_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def distance(ours, theirs):
    """Return the Euclidean distance of two states, infinity where they do not match."""
    if {n: v.shape for n, v in ours.items()} != {n: v.shape for n, v in theirs.items()}:
        return math.inf
    squares = [
        (value.double().nan_to_num() - theirs[name].double().nan_to_num())
        .square()
        .sum()
        for name, value in ours.items()
    ]
    return math.sqrt(sum(map(float, squares)))


class FineTuning:
    """Holds what a run makes of a model against what fine-tuning makes of it.

    Fine-tuning starts the new categories and takes steps along the criterion's gradient
    on images of the current experience, clipped as in every run; nothing else changes
    parameters or statistics until the scores are calibrated. Every state of the model
    is compared with what that makes of the state before, so it does not matter which
    images a run happens to draw. ``departures`` are the moments of the last call of
    training at which the two differed.
    """

    rounding = 1e-5  # of a step; those of the shipped strategies differ by 1e-3 or more

    def __init__(self, patch):
        self.departures = set()
        self.ended = None
        self.twins = ()
        self.expected = {}
        self.watch(patch, BaseTemplate, "_before_training_exp", self.start)
        self.watch(patch, BaseSGDTemplate, "_before_training_iteration", self.begin)
        self.watch(patch, BaseSGDTemplate, "_after_training_iteration", self.finish)
        calibrate = CalibrationPlugin.after_training_exp

        def end(plugin, strategy, *args, **kwargs):
            self.compare("end", strategy)
            calibrate(plugin, strategy, *args, **kwargs)
            self.ended = copy.deepcopy(strategy.model)

        patch.setattr(CalibrationPlugin, "after_training_exp", end)

    @staticmethod
    def watch(patch, owner, name, look):
        original = getattr(owner, name)

        def call(strategy, *args, **kwargs):
            original(strategy, *args, **kwargs)
            look(strategy)

        patch.setattr(owner, name, call)

    def compare(self, moment, strategy, allowed=0.0):
        actual = state_of(strategy.model)
        if distance(actual, self.expected) > allowed:
            self.departures.add(moment)
        self.expected = actual

    def start(self, strategy):
        self.departures.clear()
        model = strategy.model
        if self.ended is not None:
            model = self.ended.train()
            with torch.random.fork_rng(devices=[]):
                model.adaptation(strategy.experience)
        self.expected = state_of(model)
        self.compare("start", strategy)

    def begin(self, strategy):
        """Take the gradient that fine-tuning would take now."""
        self.compare("between steps", strategy)
        model, optimizer, criterion = self.twins = copy.deepcopy(
            (strategy.model, strategy.optimizer, strategy._criterion)
        )
        optimizer.zero_grad()
        current = strategy.experience.classes_in_this_experience
        rows = [y in current for y in strategy.mb_y.tolist()]
        if any(rows):
            with torch.random.fork_rng(devices=[]):
                output = model.train().requires_grad_(True)(strategy.mb_x[rows])
                criterion(output, strategy.mb_y[rows]).backward()

    def finish(self, strategy):
        """Take the step."""
        model, optimizer, _ = self.twins
        for ours, theirs in zip(
            model.parameters(), strategy.model.parameters(), strict=True
        ):
            # momentum moves a parameter with a gradient of zero and no other
            if ours.grad is None and theirs.grad is not None:
                ours.grad = torch.zeros_like(ours)
        for plugin in strategy.plugins:
            if isinstance(plugin, GradientClippingPlugin):
                clip_grad_norm_(model.parameters(), plugin.max_norm)
        optimizer.step()
        before, self.expected = self.expected, state_of(model)
        step = distance(self.expected, before)
        self.compare("step", strategy, self.rounding * step)


@dataclass
class Watched:
    """A run that was stopped at its very end, and the run that resumed from there.

    ``known`` and ``ends`` are the model's categories and state after each call of
    training, ``starts`` its state before the first step of each. ``departures`` are
    those from fine-tuning, and ``broken`` is what ended the last call of training when
    its images were poisoned.
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
    departures: set[str] = field(default_factory=set)
    broken: Exception | None = None
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


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module", params=list_recipes("strategies"))
def watched(request, cache, tiny_stream, tmp_path_factory):
    """Run a strategy, stop it before its last checkpoint, and resume it."""
    recipe = shrunken(tiny_stream, request.param)
    seen = Watched(tmp_path_factory.mktemp("runs") / request.param, recipe.strategy)
    build_strategy, build_benchmark = beginning.build_strategy, runner.build_benchmark

    def strategy(*args, **kwargs):
        seen.strategy = build_strategy(*args, **kwargs)
        for plugin in seen.strategy.plugins:
            if isinstance(plugin, CalibrationPlugin):
                plugin.folds = 3  # each is a model fitted again, as each of 16 is
        return seen.strategy

    def benchmark(*args, **kwargs):
        seen.benchmark = build_benchmark(*args, **kwargs)
        return seen.benchmark

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

    save = run_state.Checkpoints.save

    def stop_before_the_last(checkpoints):
        state, last = checkpoints.state, len(CATEGORIES) - 1
        if state.next <= last:
            save(checkpoints)
            return
        history = state.metrics.history
        after_task(last, [r for r in history if r["training_experience"] == last])
        seen.metrics_csv = checkpoints.folder.metrics.read_bytes()
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginning, "build_strategy", strategy)
        patch.setattr(runner, "build_benchmark", benchmark)
        patch.setattr(run_state.Checkpoints, "save", stop_before_the_last)
        fine_tuning = FineTuning(patch)
        fine_tuning.watch(
            patch,
            BaseTemplate,
            "_before_training_exp",
            lambda strategy: seen.starts.append(state_of(strategy.model)),
        )
        with pytest.raises(Stop):
            runner.run_experiment(
                recipe, seen.folder, cache=cache, after_task=after_task
            )
    seen.departures = fine_tuning.departures
    if seen.strategy.train_epochs:
        with pytest.MonkeyPatch.context() as patch:
            poison(patch)
            try:
                runner.run_experiment(recipe, seen.folder, cache=cache)
            except Exception as error:  # a test looks at what it is
                seen.broken = error.with_traceback(None)
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


def test_a_loss_that_is_not_finite_stops_the_run(watched):
    if watched.strategy.train_epochs:
        last = 0 if watched.joint else 1
        assert isinstance(watched.broken, TrainingError), watched.broken
        found = f"the loss became nan in experience {last}, step 0 ("
        assert str(watched.broken).startswith(found)


def test_scores_are_calibrated_and_all_stays_finite(watched):
    calibrated = [
        sorted(plugin.thresholds)
        for plugin in watched.strategy.plugins
        if isinstance(plugin, CalibrationPlugin)
    ]
    assert calibrated == [[0, 1, 2, 3]]
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


def test_it_does_something(watched):
    """Only a strategy that says so makes what fine-tuning makes."""
    recipe = watched.recipe
    nothing = not recipe.plugins and recipe.strategy.endswith(".Naive")
    # flows of low rank freeze their base after the first experience, and critics are
    # told from painted defects
    nothing = nothing and not {"rank", "critic"} & recipe.model.keys()
    # or one that scores by another entropy
    # the setting of what the uncertainty is of, where there is one
    settings = watched.ends[-1].get("_extra_state")
    rescored = settings is not None and bytes(settings.tolist())[13:18] != b"known"
    assert (bool(watched.departures) or rescored) != nothing


IDLE = {
    # looks through the data, which draws random numbers, to no purpose
    "importances": """\
[[plugins]]
type = "avalanche.training.plugins.EWCPlugin"
ewc_lambda = 0.0
""",
    "sensitivities": """\
[[plugins]]
type = "avalanche.training.plugins.MASPlugin"
lambda_reg = 0.0
""",
    # no further from nothing than rounding is
    "a trace": """\
[[plugins]]
type = "avalanche.training.plugins.EWCPlugin"
ewc_lambda = 1e-9
""",
}


@pytest.mark.parametrize("plugins", IDLE.values(), ids=IDLE)
def test_what_does_nothing_is_found_out(plugins, cache, tiny_stream, tmp_path):
    idle = tmp_path / "idle.toml"
    idle.write_text(
        'title = "Idle"\nsummary = "Nothing."\n'
        f'strategy = "avalanche.training.supervised.Naive"\n{plugins}'
    )
    recipe = load_experiment(str(tiny_stream), str(idle), STREAM)
    with pytest.MonkeyPatch.context() as patch:
        fine_tuning = FineTuning(patch)
        runner.run_experiment(recipe, tmp_path / "run", cache=cache)
    assert fine_tuning.ended is not None
    assert not fine_tuning.departures


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
