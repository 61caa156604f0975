"""Every metric of Avalanche on our streams: works, or fails as the README says.

A version of Avalanche that mends one of them, or breaks another, is noticed here.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
import torch
from avalanche.benchmarks.scenarios.generic_scenario import MaskedAttributeError
from avalanche.evaluation import metrics as stock
from avalanche.logging import (
    CSVLogger,
    InteractiveLogger,
    TensorboardLogger,
    TextLogger,
)
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torchvision.utils import make_grid

from avalanche_ad.benchmarks import anomaly_benchmark
from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.features import FeatureCache, make_backbone
from avalanche_ad.training import DynamicFlowGMM, FlowGMMLoss, make_optimizer
from avalanche_ad.training.plugins import CalibrationPlugin

README = Path(__file__).resolve().parents[2] / "README.md"
CATEGORIES = ("bolt", "gear", "brush", "carpet_weave")
SIZE = 80

EVERYWHERE = {"epoch": True, "experience": True, "stream": True}
WORKS: dict[str, dict[str, object]] = {
    "MAC_metrics": {"minibatch": True, "epoch": True, "experience": True},
    "accuracy_matrix_metrics": {},
    "accuracy_metrics": {
        **EVERYWHERE,
        "minibatch": True,
        "epoch_running": True,
        "trained_experience": True,
    },
    "amca_metrics": {},
    "bwt_metrics": {"experience": True, "stream": True},
    "class_accuracy_metrics": {**EVERYWHERE, "minibatch": True, "epoch_running": True},
    "confusion_matrix_metrics": {"stream": True, "wandb": True, "save_image": True},
    "cpu_usage_metrics": {**EVERYWHERE, "minibatch": True, "epoch_running": True},
    "disk_usage_metrics": {**EVERYWHERE, "minibatch": True},
    "forgetting_metrics": {"experience": True, "stream": True},
    "forward_transfer_metrics": {"experience": True, "stream": True},
    "gpu_usage_metrics": {**EVERYWHERE, "gpu_id": 0, "minibatch": True},
    "images_samples_metrics": {"n_rows": 2, "n_cols": 2, "on_train": True},
    "labels_repartition_metrics": {"on_train": True, "on_eval": True},
    "loss_metrics": {**EVERYWHERE, "minibatch": True, "epoch_running": True},
    "mean_scores_metrics": {"on_train": True, "on_eval": True},
    "ram_usage_metrics": {**EVERYWHERE, "minibatch": True},
    "timing_metrics": {**EVERYWHERE, "minibatch": True, "epoch_running": True},
    "topk_acc_metrics": {
        **EVERYWHERE,
        "top_k": 3,
        "minibatch": True,
        "trained_experience": True,
    },
}
BY_CLASS = (
    "class_accuracy_metrics",
    "confusion_matrix_metrics",
    "forgetting_metrics",
    "images_samples_metrics",
    "labels_repartition_metrics",
    "mean_scores_metrics",
    "topk_acc_metrics",
)
FAILS = {
    "images_samples_metrics": ({"on_eval": True, "on_train": False}, "too many values"),
    "topk_acc_metrics": ({"top_k": 5, "stream": True}, "smaller or equal"),
    "forward_transfer_metrics": ({"stream": True}, "eval every > -1"),
}
"""Arguments that cannot work, and what Avalanche says."""


@pytest.fixture(scope="module")
def backbone():
    return make_backbone("filterbank")


@pytest.fixture(scope="module")
def streams(backbone, tmp_path_factory):
    cache = FeatureCache(tmp_path_factory.mktemp("stock") / "cache")
    counts = {"train_images": 4, "test_normals": 2, "test_anomalies": 2}
    data = SyntheticAD(SIZE, categories=CATEGORIES, **counts)

    def build(**options):
        sizes = {"image_size": SIZE, "mask_size": 16}
        return anomaly_benchmark(data, n_experiences=2, **sizes, **options)

    on = {"backbone": backbone, "cache": cache}
    return {
        "features": build(**on),
        "tasks": build(**on, return_task_id=True),
        "images": build(),
    }


@pytest.fixture
def learn(streams, backbone, tmp_path):
    """Learn a stream with metrics and every logger; return the last evaluation."""
    opened = []

    def call(kind, metrics, eval_every=-1):
        stream = streams[kind]
        torch.manual_seed(0)
        model = DynamicFlowGMM(
            streams["features"].layout,
            len(CATEGORIES),
            couplings=1,
            condition_channels=0,
            centers_per_category=2,
        )
        if kind == "images":
            model.attach_backbone(backbone, SIZE, 16)
        board, table = TensorboardLogger(str(tmp_path / "b")), CSVLogger(str(tmp_path))
        opened.extend([board.writer, table])
        loggers = [InteractiveLogger(), TextLogger(io.StringIO()), board, table]
        strategy = Naive(
            model=model,
            optimizer=make_optimizer(model),
            criterion=FlowGMMLoss(),
            train_mb_size=4,
            train_epochs=1,
            eval_mb_size=4,
            eval_every=eval_every,
            plugins=[CalibrationPlugin()],
            evaluator=EvaluationPlugin(metrics, loggers=loggers, strict_checks=False),
        )
        found = {}
        beside = [] if eval_every < 0 else [stream.test_stream]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Avalanche's metrics and loggers
            for experience in stream.train_stream:
                strategy.train(experience, eval_streams=beside, num_workers=0)
                found = strategy.eval(stream.test_stream, num_workers=0)
        return found

    yield call
    for one in opened:
        one.close()


def test_every_helper_is_tried():
    helpers = {name for name in dir(stock) if name.endswith("_metrics")}
    assert set(WORKS) == helpers


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, "features") for name in sorted(WORKS)]
    + [(name, kind) for name in BY_CLASS for kind in ("tasks", "images")],
)
def test_a_stock_metric_works(learn, name, kind):
    made = getattr(stock, name)(**WORKS[name])
    assert learn(kind, made, 0 if name == "forward_transfer_metrics" else -1)


@pytest.mark.parametrize("name", sorted(FAILS))
def test_what_cannot_work_fails_as_the_readme_says(learn, name):
    arguments, reason = FAILS[name]
    with pytest.raises((ValueError, AssertionError), match=reason):
        learn("features", getattr(stock, name)(**arguments))
    rows = [line for line in README.read_text("utf-8").splitlines() if "|" in line]
    assert any(f"`{name}`" in row for row in rows)


def test_cumulative_accuracy_works(learn):
    found = learn("features", stock.CumulativeAccuracyPluginMetric())
    assert {key.split("/")[-1] for key in found} == {"Exp000", "Exp001"}


@pytest.mark.parametrize("kind", ["features", "images"])
def test_the_confusion_matrix_is_of_the_categories(learn, streams, kind):
    made = stock.confusion_matrix_metrics(stream=True, save_image=True, num_classes=4)
    made += stock.accuracy_metrics(stream=True)
    found = learn(kind, made)
    image, matrix = found["ConfusionMatrix_Stream/eval_phase/test_stream"].alternatives
    assert matrix.shape == (4, 4)
    targets = [
        int(target)
        for experience in streams[kind].test_stream
        for target in experience.dataset.targets
    ]
    assert matrix.sum(dim=1).tolist() == [targets.count(c) for c in range(4)]
    right = float(matrix.diagonal().sum() / matrix.sum())
    accuracy = found["Top1_Acc_Stream/eval_phase/test_stream/Task000"]
    assert accuracy == pytest.approx(right)
    assert image is not None


def test_top_k_accuracy_is_between_accuracy_and_one(learn):
    made = stock.accuracy_metrics(stream=True)
    for k in (1, 2, 4):
        made += stock.topk_acc_metrics(top_k=k, stream=True)
    found = learn("features", made)
    at = "_Acc_Stream/eval_phase/test_stream/Task000"
    top = {k: found[f"Topk_{k}{at}"] for k in (1, 2, 4)}
    assert top[1] == pytest.approx(found[f"Top1{at}"])
    assert top[1] <= top[2] <= top[4] == 1.0


def test_image_samples_are_the_images_of_an_image_stream(learn, streams):
    made = stock.images_samples_metrics(n_rows=2, n_cols=2, on_train=True)
    found = learn("images", made)["images/train_phase/train_stream/Task000"]
    assert found.image.shape == make_grid([torch.zeros(3, SIZE, SIZE)] * 4, 2).shape
    shown = found.image[:, 2 : 2 + SIZE, 2 : 2 + SIZE]
    experience = streams["images"].train_stream[1]
    images = [experience.dataset[i][0] for i in range(len(experience.dataset))]
    assert any(torch.equal(shown, image) for image in images)


def test_a_benchmark_tells_its_classes_as_avalanches_own_do(streams):
    stream = streams["features"]
    assert stream.n_classes == 4
    assert stream.n_classes_per_exp == [2, 2]
    assert stream.classes_order == [0, 1, 2, 3]
    sets = [{0, 1}, {2, 3}]
    assert stream.classes_in_experience == {"train": sets, "test": sets}
    for part in (stream.train_stream, stream.test_stream):
        assert part.benchmark is stream
        for experience in part:
            assert experience.benchmark is stream
            assert experience.logging().benchmark is stream
            with pytest.raises(MaskedAttributeError):
                _ = experience.train().benchmark
