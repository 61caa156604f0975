"""A finished run goes on with new categories, as one run of the whole stream would."""

from __future__ import annotations

import json

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from safetensors.torch import load_file

from avalanche_ad import FlowGMMLoss, SplitSyntheticAD, make_backbone, make_optimizer
from avalanche_ad.errors import DatasetError, ResultsError, TrainingError
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.models.storage import load_model
from avalanche_ad.recipes import load_experiment
from avalanche_ad.training.dynamic import load_dynamic_model
from avalanche_ad.training.plugins import CalibrationPlugin

pytestmark = pytest.mark.slow

WHOLE = 'experiences=[["bolt", "brush"], ["carpet_weave", "gear"]]'
FIRST = 'experiences=[["bolt", "brush"]]'
NEW = 'experiences=[["carpet_weave", "gear"]]'
FEWER = {"gmm_alignment": ("plugins.0.components=4", "plugins.0.samples=400")}
"""Settings of a strategy for a fraction of the time."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("going_on")


@pytest.fixture(scope="module")
def run(place, tiny_stream):
    cache = FeatureCache(place / "cache")

    def call(out, strategy, *overrides, **options):
        overrides = (*overrides, *FEWER.get(strategy, ()))
        recipe = load_experiment(str(tiny_stream), strategy, overrides)
        return run_experiment(recipe, out, cache=options.pop("cache", cache), **options)

    return call


@pytest.fixture(scope="module")
def first(place, run):
    """Runs of the first experience, made once."""
    made = {}

    def get(strategy):
        if strategy not in made:
            made[strategy] = place / f"first-{strategy}"
            run(made[strategy], strategy, FIRST)
        return made[strategy]

    return get


def read(folder):
    return json.loads((folder / "results.json").read_text())


def assert_same_model(one, other):
    """Up to the order of sums over the rows of categories still to come."""
    found, expected = (load_file(run / "model.safetensors") for run in (one, other))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-4, atol=1e-6, equal_nan=True, msg=name
        )


@pytest.mark.parametrize(
    "strategy",
    [
        *("naive", "feature_gmm", "gmm_alignment", "replay", "ewc", "lwf", "si"),
        *("agem", "gem", "mir", "mas", "packnet", "alignment_snapshot", "gdumb"),
        "generative_replay",
    ],
)
def test_it_ends_where_one_run_of_the_whole_stream_does(run, first, tmp_path, strategy):
    whole = run(tmp_path / "whole", strategy, WHOLE)
    start = first(strategy)
    before = (start / "learner").read_bytes()
    found = run(tmp_path / "run", strategy, WHOLE, start=start)
    assert found["continued"]["run"] == str(start)
    assert found["continued"]["experiences"] == 1
    assert found["matrix"].keys() == whole["matrix"].keys()
    for metric, rows in whole["matrix"].items():
        for expected, row in zip(rows, found["matrix"][metric], strict=True):
            assert row == pytest.approx(expected, abs=1e-4), metric
    assert found["memory_mb"] == whole["memory_mb"]
    assert_same_model(tmp_path / "run", tmp_path / "whole")
    lines = [(tmp_path / name / "metrics.csv").read_text() for name in ("whole", "run")]
    assert len(lines[0].splitlines()) == len(lines[1].splitlines())
    assert (start / "learner").read_bytes() == before


def test_the_old_images_need_not_be_there(run, first, tmp_path):
    """A new stream of the new categories alone, and a cache without the old ones."""
    whole = run(tmp_path / "whole", "gmm_alignment", WHOLE)
    cache = FeatureCache(tmp_path / "cache")
    found = run(
        tmp_path / "run",
        "gmm_alignment",
        NEW,
        start=first("gmm_alignment"),
        cache=cache,
    )
    assert len(cache.entries()) == 2
    assert found["categories"] == whole["categories"]
    for metric, rows in whole["matrix"].items():
        (learned, _), (_, new) = rows
        # the old categories were measured when they were learned, and not again
        assert found["matrix"][metric] == [[learned, None], [None, new]], metric
    assert_same_model(tmp_path / "run", tmp_path / "whole")
    description = json.loads((tmp_path / "run" / "model.json").read_text())
    assert description["categories"] == ["bolt", "brush", "carpet_weave", "gear"]


def test_it_goes_on_and_on_and_is_interrupted(run, tmp_path):
    names = ("bolt", "brush", "gear")
    steps = [f"experiences={[[one] for one in names[:n]]}" for n in (1, 2, 3)]
    run(tmp_path / "0", "gmm_alignment", steps[0])
    run(tmp_path / "1", "gmm_alignment", steps[1], start=tmp_path / "0")

    class Clicks:
        left = 3

        def start(self, what, total):
            pass

        report = lambda self, what, done, total: None  # noqa: E731

        def advance(self, what):
            self.left -= 1
            if not self.left:
                raise Stop

    with pytest.raises(Stop):
        run(
            tmp_path / "2",
            "gmm_alignment",
            steps[2],
            start=tmp_path / "1",
            progress=Clicks(),
            checkpoint_minutes=0,
        )
    said = []
    found = run(
        tmp_path / "2",
        "gmm_alignment",
        steps[2],
        start=tmp_path / "1",
        announce=said.append,
    )
    assert "goes on within task 3 of 3" in said[0]
    run(tmp_path / "whole", "gmm_alignment", steps[2])
    assert_same_model(tmp_path / "2", tmp_path / "whole")
    assert found["continued"]["experiences"] == 2


def test_a_finished_run_says_how_to_go_on(run, first):
    with pytest.raises(ResultsError, match=r"--from .*first-naive goes on from it"):
        run(first("naive"), "naive", WHOLE)
    with pytest.raises(ResultsError) as refused:
        run(first("naive"), "naive", WHOLE, "training.epochs=3")
    assert "--from" not in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "options", "reason"),
    [
        ([WHOLE, "training.epochs=3"], {}, r"this differs \(training.epochs 2 → 3\)"),
        ([WHOLE], {"seed": 1}, r"this differs \(seed 0 → 1\)"),
        ([FIRST], {}, "has learned all of this stream: give one with more"),
        (
            ['experiences=[["bolt"], ["gear"]]'],
            {},
            r"has learned \[\['bolt', 'brush'\]\]: expected a stream that begins",
        ),
    ],
)
def test_what_does_not_go_on_is_refused(
    run, first, tmp_path, overrides, options, reason
):
    with pytest.raises(ResultsError, match=reason):
        run(tmp_path / "run", "naive", *overrides, start=first("naive"), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["blurry=0.3", "forward_transfer=true"])
def test_what_reaches_back_does_not_go_on(run, first, tmp_path, key):
    with pytest.raises(ResultsError, match="does not go with (blurry|forward_transf)"):
        run(tmp_path / "run", "naive", WHOLE, key, start=first("naive"))


def test_how_a_run_began_is_part_of_it(run, first, tmp_path):
    whole, on = tmp_path / "whole", tmp_path / "on"
    run(whole, "naive", WHOLE)
    with pytest.raises(ResultsError, match="of the whole stream, which did not go on"):
        run(whole, "naive", WHOLE, start=first("naive"))
    made = run(on, "naive", WHOLE, start=first("naive"))
    with pytest.raises(ResultsError, match="a run that went on from .*first-naive"):
        run(on, "naive", WHOLE)
    assert run(on, "naive", WHOLE, start=first("naive")) == made


class Stop(KeyboardInterrupt):
    """An interruption by the user."""


def stop(task, rows):
    raise Stop


def test_an_interrupted_run_does_not_stand_in_for_another(run, first, tmp_path):
    """One of the same stream that began otherwise, nor its files."""
    three = WHOLE[:-1] + ', ["capsule_print"]]'
    whole = run(tmp_path / "whole", "naive", three)
    with pytest.raises(Stop):
        run(tmp_path / "run", "naive", three, after_task=stop)
    with pytest.raises(ResultsError, match="no --from → --from .*first-naive"):
        run(tmp_path / "run", "naive", three, start=first("naive"))
    said = []
    found = run(
        tmp_path / "run",
        "naive",
        three,
        start=first("naive"),
        fresh=True,
        announce=said.append,
    )
    assert "begins anew, as --fresh says" in said[0]
    assert "from" in said[1]
    assert found["matrix"].keys() == whole["matrix"].keys()
    assert_same_model(tmp_path / "run", tmp_path / "whole")
    assert b"\0" not in (tmp_path / "run" / "metrics.csv").read_bytes()


@pytest.mark.parametrize("strategy", ["joint", "cumulative", "der"])
def test_a_strategy_that_cannot_go_on_says_why(run, first, tmp_path, strategy):
    with pytest.raises(ResultsError, match="run the longer stream as a whole"):
        run(tmp_path / "run", strategy, WHOLE, start=first(strategy))


def test_a_run_without_its_learner_is_told(run, first, tmp_path):
    run(tmp_path / "first", "naive", FIRST)
    (tmp_path / "first" / "learner").unlink()
    with pytest.raises(ResultsError, match="cannot be gone on from: learner is miss"):
        run(tmp_path / "run", "naive", WHOLE, start=tmp_path / "first")


# In Python --------------------------------------------------------------------------


def stream(**options):
    return SplitSyntheticAD(
        image_size=80, mask_size=32, backbone=make_backbone("embedded"), **options
    )


def learner(model):
    return Naive(
        model=model,
        optimizer=make_optimizer(model, lr=3e-3),
        criterion=FlowGMMLoss(),
        train_mb_size=8,
        plugins=[CalibrationPlugin(images_per_category=4)],
        evaluator=EvaluationPlugin(loggers=[]),
    )


@pytest.mark.parametrize("load", [load_model, load_dynamic_model])
def test_a_new_category_is_not_learned_as_an_old_one(first, load):
    model, _ = load(first("naive"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new = stream(experiences=[["hex_nut"]])
    with pytest.raises(
        TrainingError, match="category 0 is .hex_nut. .* learned 'bolt'"
    ):
        learner(model).train(new.train_stream[0])
    assert all(before[name].equal(t) for name, t in model.state_dict().items())


def test_a_model_goes_on_in_python(first):
    model, description = load_dynamic_model(first("naive"))
    new = stream(experiences=[["hex_nut"]], learned=description["experiences"])
    assert new.category_names == ("bolt", "brush", "hex_nut")
    assert new.learned == 1
    assert [len(one.dataset) for one in new.train_stream] == [0, 64]
    strategy = learner(model)
    strategy.train(new.train_stream[1])
    assert model.known_categories.tolist() == [0, 1, 2]
    assert model.category_names == {0: "bolt", 1: "brush", 2: "hex_nut"}


def test_a_category_learned_before_is_not_new():
    with pytest.raises(DatasetError, match=".hex_nut. was learned before"):
        stream(experiences=[["hex_nut"]], learned=[["hex_nut"]])
