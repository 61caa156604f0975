"""Forward transfer is measured apart from the run it is measured in."""

from __future__ import annotations

import json

import pytest

from avalanche_ad.evaluation.continual import forward_transfer
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import load_experiment

AHEAD = ["forward_transfer=true"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("forward")


@pytest.fixture(scope="module")
def run(place, tiny_stream):
    def call(strategy, overrides=(), **options):
        recipe = load_experiment(str(tiny_stream), strategy, overrides)
        out = place / f"{strategy}-{len(list(place.iterdir()))}"
        results = run_experiment(
            recipe, out, cache=FeatureCache(place / "cache"), **options
        )
        return results, out

    return call


def test_it_fills_the_matrix_and_changes_nothing_else(run):
    plain, plain_folder = run("replay")
    ahead, folder = run("replay", AHEAD)
    for metric in ("image_auroc", "pixel_auroc", "aupro"):
        assert plain["matrix"][metric][0][1] is None
        assert plain["fwt"][metric] is None
        assert isinstance(ahead["matrix"][metric][0][1], float)
        assert isinstance(ahead["fwt"][metric], float)
    assert ahead["matrix"]["image_auroc_oracle"][0][1] is None  # of a category unknown
    for section in ("final", "step_mean", "forgetting", "plasticity", "per_category"):
        assert ahead[section] == plain[section], section
    for name in ("metrics.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (plain_folder / name).read_bytes()


def test_it_is_the_head_start_on_the_untrained_model(run):
    untrained, _ = run("naive", [*AHEAD, "training.lr=1e-30"])
    # a model that learned nothing has no head start on itself
    assert untrained["fwt"]["image_auroc"] == pytest.approx(0, abs=1e-9)
    trained, _ = run("naive", [*AHEAD, "training.epochs=8"])
    baseline = untrained["matrix"]["pixel_auroc"][0][1]
    expected = forward_transfer(trained["matrix"]["pixel_auroc"], [None, baseline])
    # means over a task's images depend on their order in the last digit
    assert trained["fwt"]["pixel_auroc"] == pytest.approx(expected, abs=1e-5)
    assert trained["fwt"]["pixel_auroc"] != pytest.approx(0, abs=1e-3)


def test_it_survives_an_interruption(run, place, tiny_stream):
    whole, _ = run("naive", AHEAD)
    recipe = load_experiment(str(tiny_stream), "naive", AHEAD)
    out = place / "interrupted"

    def stop(task, rows):
        # the checkpoint of a task comes after this call
        if task == 1:
            raise KeyboardInterrupt

    cache = FeatureCache(place / "cache")
    with pytest.raises(KeyboardInterrupt):
        run_experiment(recipe, out, cache=cache, after_task=stop)
    run_experiment(recipe, out, cache=cache)
    resumed = json.loads((out / "results.json").read_text())
    assert resumed["fwt"] == whole["fwt"]
    assert resumed["matrix"] == whole["matrix"]


@pytest.mark.parametrize("strategy", ["joint", "feature_gmm"])
def test_it_is_undefined_without_steps_or_an_untrained_score(run, strategy):
    results, _ = run(strategy, AHEAD)
    assert results["fwt"]["image_auroc"] is None
