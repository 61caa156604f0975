"""Metrics by name, by path and of one's own, and what is refused."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from avalanche_ad.errors import AvalancheADError, RecipeError
from avalanche_ad.evaluation import AnomalyMetric, CurveMetric
from avalanche_ad.evaluation.detection import pixel_metrics
from avalanche_ad.evaluation.measures.aupro import AUPRO
from avalanche_ad.evaluation.measuring import computed, level_values
from avalanche_ad.evaluation.registry import (
    DEFAULT_METRICS,
    METRICS,
    find_metrics,
    metric_names,
)


class Highest(AnomalyMetric):
    name = "highest"
    needs_both = False

    def compute(self, scores, labels):
        return scores.max()


def made(**attributes):
    return type("Made", (Highest,), attributes)()


def test_every_default_metric_is_found_by_its_name():
    assert set(METRICS.names()) >= set(DEFAULT_METRICS)
    for name, kind in METRICS.own.items():
        assert kind.name == name
    assert [one.name for one in find_metrics(DEFAULT_METRICS)] == [*DEFAULT_METRICS]


def test_a_path_and_an_instance_do_as_well(monkeypatch):
    module = ModuleType("own_metrics")
    module.Highest = Highest
    monkeypatch.setitem(sys.modules, "own_metrics", module)
    (by_path,) = find_metrics(["own_metrics.Highest"])
    assert isinstance(by_path, Highest)
    own = AUPRO(0.05)
    assert find_metrics([own, by_path]) == (own, by_path)
    assert metric_names([own, by_path])[2:] == ("aupro_oracle", "highest_oracle")


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["aupr"], r"unknown metric 'aupr' \(did you mean 'aupro'\?\)"),
        (["no_module.Mine"], "no module 'no_module'"),
        (["avalanche_ad.evaluation.CurveMetric"], "CurveMetric lacks of_curve"),
        (["aupro", AUPRO(0.1)], "there is a metric 'aupro' already"),
        ([made(name="Big")], "expected a name of lower-case letters"),
        ([made(name=None)], "expected a name of lower-case letters"),
        ([made(name="a/b")], "expected a name of lower-case letters"),
        ([made(name="mine_oracle")], "means something else in results"),
        ([made(name="category")], "means something else in results"),
        ([made(level="defect")], "expected a level of image, pixel, category"),
    ],
)
def test_what_is_no_metric_is_refused(metrics, words):
    with pytest.raises(RecipeError, match=words):
        find_metrics(metrics)


def test_metrics_of_a_level_share_one_curve(monkeypatch):
    from avalanche_ad.evaluation import measuring

    curves = []
    make = measuring.DetectionCurve
    monkeypatch.setattr(
        measuring, "DetectionCurve", lambda *given: curves.append(1) or make(*given)
    )
    generator = np.random.default_rng(0)
    maps = generator.normal(size=(3, 8, 8)).astype(np.float32)
    masks = generator.random((3, 8, 8)) < 0.2
    found = level_values(find_metrics(DEFAULT_METRICS), "pixel", maps, masks)
    expected = pixel_metrics(maps, masks)
    assert found == {
        "pixel_threshold": expected.threshold,
        "pixel_auroc": expected.auroc,
        "pixel_ap": expected.ap,
        "pixel_f1max": expected.f1max,
        "aupro": expected.aupro,
    }
    assert len(curves) == 1


def test_a_metric_that_needs_one_class_has_a_value():
    scores, labels = np.array([0.25, 0.5]), np.array([False, False])
    metrics = [Highest(), *find_metrics(["image_auroc"])]
    assert level_values(metrics, "image", scores, labels) == {
        "image_threshold": None,
        "highest": 0.5,
        "image_auroc": None,
    }
    assert level_values(metrics, "pixel", scores, labels) == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.nan, "metric 'highest': expected a finite number, .* got nan"),
        ("much", "metric 'highest' failed: ValueError: could not convert"),
    ],
)
def test_a_value_that_is_no_number_is_told(value, words):
    metric = made(compute=lambda self, scores, labels: value)
    with pytest.raises(AvalancheADError, match=words):
        computed(metric, np.zeros(2), np.ones(2))


def test_a_metric_that_fails_is_told():
    metric = made(compute=lambda self, scores, labels: 1 / 0)
    with pytest.raises(AvalancheADError, match="failed: ZeroDivisionError"):
        computed(metric, np.zeros(2), np.ones(2))


def test_a_curve_metric_computes_alone_too():
    class FPR(CurveMetric):
        name = "fpr"

        def of_curve(self, curve):
            return curve.fpr_at_tpr(1.0)

    assert FPR().compute([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.5
