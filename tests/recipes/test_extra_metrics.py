"""Metrics that a benchmark names."""

import pytest

from avalanche_ad.errors import RecipeError
from avalanche_ad.recipes import load_experiment


def test_a_metric_beside_the_benchmark_is_found_and_a_wrong_one_told(tmp_path):
    (tmp_path / "metric_beside.py").write_text(
        "from avalanche_ad.evaluation import AnomalyMetric\n"
        "class Beside(AnomalyMetric):\n"
        "    name = 'beside'\n"
        "    def compute(self, scores, labels):\n"
        "        return 0.5\n"
    )
    path = tmp_path / "own.toml"
    stated = 'title = "Own"\nbase = "synthetic_2x2"\nextra_metrics = ["{}"]\n'
    path.write_text(stated.format("metric_beside.Beside"))
    recipe = load_experiment(str(path), "naive")
    assert recipe.folders["extra_metrics"] == tmp_path
    path.write_text(stated.format("image_aurok"))
    told = r"own.toml: key 'extra_metrics': unknown metric 'image_aurok' \(did you"
    with pytest.raises(RecipeError, match=told):
        load_experiment(str(path), "naive")
