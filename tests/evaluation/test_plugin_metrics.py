"""Metrics of Avalanche's kind say what the project's own metric says."""

import pytest
import torch

from avalanche_ad.evaluation import AnomalyMetrics
from avalanche_ad.evaluation.plugin_metrics import anomaly_metrics
from avalanche_ad.experiments.build import (
    build_backbone,
    build_benchmark,
    build_model,
    build_strategy,
    open_data,
)
from avalanche_ad.features import FeatureCache
from avalanche_ad.recipes import load_experiment

NAMES = {"ImageAUROC": "image_auroc", "PixelAUROC": "pixel_auroc", "AUPRO": "aupro"}


@pytest.fixture(scope="module")
def evaluated(tiny_stream, tmp_path_factory):
    """Both kinds' values after the last task of a tiny stream."""
    recipe = load_experiment(str(tiny_stream), "feature_gmm")
    device, cache = torch.device("cpu"), FeatureCache(tmp_path_factory.mktemp("cache"))
    data, backbone = open_data(recipe.benchmark, None), build_backbone(recipe.benchmark)
    stream = build_benchmark(recipe.benchmark, data, backbone, cache, device)
    model, _ = build_model(recipe.benchmark, stream, 0)
    metrics = [
        AnomalyMetrics(stream.category_names),
        *anomaly_metrics(experience=True, stream=True, forgetting=True, bwt=True),
    ]
    strategy = build_strategy(recipe, model, device, metrics, [], stream.mask_size)
    for experience in stream.train_stream:
        strategy.train(experience)
        found = strategy.eval(stream.test_stream)
    return found | strategy.evaluator.get_last_metrics()


def of(found, name, *parts):
    """Return the one value whose key begins with a name and has all parts."""
    (value,) = [
        value
        for key, value in found.items()
        if key.split("/")[0] == name and all(part in key.split("/") for part in parts)
    ]
    return value


@pytest.mark.parametrize(("theirs", "ours"), NAMES.items())
def test_experiences_and_stream(evaluated, theirs, ours):
    whole = evaluated[f"{ours}/eval_phase/test_stream"]
    assert of(evaluated, f"{theirs}_Stream") == pytest.approx(whole, abs=1e-12)
    for experience in ("Exp000", "Exp001"):
        (own,) = [
            value
            for key, value in evaluated.items()
            if key.startswith(f"{ours}/") and key.endswith(experience)
        ]
        found = of(evaluated, f"{theirs}_Exp", experience)
        assert found == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize(("theirs", "ours"), NAMES.items())
def test_forgetting_and_transfer(evaluated, theirs, ours):
    lost = evaluated[f"{ours}_forgetting/eval_phase/test_stream"]
    for level, parts in (("Experience", ["Exp000"]), ("Stream", [])):
        found = of(evaluated, f"{theirs}_{level}Forgetting", *parts)
        assert found == pytest.approx(lost, abs=1e-12)
        found = of(evaluated, f"{theirs}_{level}BWT", *parts)
        assert found == pytest.approx(-lost, abs=1e-12)
