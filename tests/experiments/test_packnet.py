"""A PackNet run: resumed, saved, loaded without Avalanche, and used to predict."""

import json
import math
import subprocess
import sys

import pytest
from PIL import Image

from avalanche_ad.errors import AvalancheADError
from avalanche_ad.experiments.runner import run_experiment
from avalanche_ad.features import FeatureCache
from avalanche_ad.models import PackNetFlowGMM
from avalanche_ad.models.storage import load_model
from avalanche_ad.recipes import load_experiment

pytestmark = pytest.mark.slow


class Stop(KeyboardInterrupt):
    """An interruption by the user."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_stream):
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))

    def call(out, overrides=(), **options):
        recipe = load_experiment(str(tiny_stream), "packnet", overrides)
        return run_experiment(recipe, out, cache=cache, **options)

    return call


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("packnet") / "run"
    run(out)
    return out


def test_an_interrupted_run_resumes_to_the_same_results(run, finished, tmp_path):
    def interrupt(task, rows):
        if task == 0:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "run", after_task=interrupt)
    tasks = []
    run(tmp_path / "run", after_task=lambda task, rows: tasks.append(task))
    assert tasks == [1]
    for name in ("metrics.csv", "model.safetensors", "model.json"):
        one, other = (folder / name for folder in (tmp_path / "run", finished))
        assert one.read_bytes() == other.read_bytes(), name


def test_given_the_category_nothing_is_forgotten(finished):
    results = json.loads((finished / "results.json").read_text())
    oracle = [name for name in results["forgetting"] if name.endswith("_oracle")]
    assert len(oracle) > 5
    for name in oracle:
        assert results["forgetting"][name] == 0, name
        assert results["matrix"][name][0][0] == results["matrix"][name][1][0], name


def test_the_saved_run_knows_its_tasks(finished):
    model, description = load_model(finished)
    assert description["type"] == "packnet_flow_gmm"
    assert type(model) is PackNetFlowGMM
    assert model.category_task.tolist() == [0, 0, 1, 1]
    owner = model.flows[0].blocks[0].subnet[0].owner
    shares = [float((owner == task).float().mean()) for task in range(3)]
    assert shares == pytest.approx([0.2, 0.16, 0.64], abs=0.01)


def test_a_saved_run_predicts(finished, cli, tmp_path):
    image = tmp_path / "image.png"
    Image.effect_noise((80, 80), 40).convert("RGB").save(image)
    done = cli("predict", finished, image, "--no-heat-maps")
    assert done.code == 0, done.err
    line = json.loads(done.out)
    assert line["category"] in ("bolt", "brush", "carpet_weave", "gear")
    assert math.isfinite(line["score"])
    assert line["anomalous"] == (line["score"] >= line["threshold"])


def test_a_saved_run_loads_without_avalanche(finished):
    script = (
        "import sys; from pathlib import Path\n"
        "from avalanche_ad.models.storage import load_model\n"
        "model, _ = load_model(Path(sys.argv[1]))\n"
        "import torch; model(torch.zeros(1, model.layout.size))\n"
        "print('avalanche' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, finished],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=1", r"raise \[training\] epochs"),
        ("model.packnet=false", r"set \[model\] packnet = true"),
        ("model.categories_at_start=true", "cannot go with packnet"),
    ],
)
def test_what_cannot_go_together_is_told(run, tmp_path, override, message):
    with pytest.raises(AvalancheADError, match=message):
        run(tmp_path / "run", [override])
    assert not (tmp_path / "run").exists()
