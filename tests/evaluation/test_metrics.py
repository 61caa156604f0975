import copy
import io
import warnings

import numpy as np
import pytest
import torch
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    forgetting_metrics,
    loss_metrics,
    timing_metrics,
)
from avalanche.logging import InteractiveLogger, TensorboardLogger, TextLogger

from avalanche_ad.errors import AvalancheADError
from avalanche_ad.evaluation.anomaly_metric import AnomalyMetric
from avalanche_ad.evaluation.continual import result_matrix
from avalanche_ad.evaluation.detection import (
    UndefinedMetricWarning,
    binary_metrics,
    pixel_metrics,
)
from avalanche_ad.evaluation.metrics import AnomalyMetrics, anomaly_metrics
from avalanche_ad.evaluation.registry import DEFAULT_METRICS, metric_names

NAMES = ("bottle", "cable", "capsule")


@pytest.fixture(autouse=True)
def no_logger_is_fine():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No loggers specified")
        yield


def expected_values(experience, category):
    items = [item for item in experience.dataset if item[1] == category]
    maps = np.stack([item[0].view(8, 8).numpy() for item in items])
    flags = [bool(item[2]) for item in items]
    masks = np.stack([item[3].numpy() for item in items])
    image = binary_metrics(maps.reshape(len(maps), -1).max(axis=1), flags)
    pixel = pixel_metrics(maps, masks)
    return {
        "image_auroc": image.auroc,
        "image_ap": image.ap,
        "image_f1max": image.f1max,
        "pixel_auroc": pixel.auroc,
        "pixel_ap": pixel.ap,
        "pixel_f1max": pixel.f1max,
        "aupro": pixel.aupro,
    }


def test_metric_names():
    names = metric_names()
    assert names[: len(DEFAULT_METRICS)] == DEFAULT_METRICS
    assert len(names) == 15
    assert "category_accuracy_oracle" not in names
    assert metric_names(["aupro"], oracle=False) == ("aupro",)


@pytest.mark.parametrize("with_task_ids", [False, True])
def test_values_names_and_history(make_benchmark, make_strategy, with_task_ids):
    benchmark = make_benchmark(with_task_ids=with_task_ids)
    (metrics,) = anomaly_metrics(NAMES)
    strategy = make_strategy(metrics)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    found = strategy.eval(benchmark.test_stream)

    expected = {
        (experience, category): expected_values(
            benchmark.test_stream[experience], category
        )
        for experience, category in [(0, 0), (0, 1), (1, 2)]
    }
    task = ["/Task000", "/Task001"] if with_task_ids else ["", ""]
    for metric in expected[0, 0]:
        prefix = f"{metric}/eval_phase/test_stream"
        values = {key: value[metric] for key, value in expected.items()}
        for (experience, category), value in values.items():
            name = f"{prefix}{task[experience]}/Exp{experience:03}/{NAMES[category]}"
            assert found[name] == pytest.approx(value)
        mean = (values[0, 0] + values[0, 1]) / 2
        assert found[f"{prefix}{task[0]}/Exp000"] == pytest.approx(mean)
        assert found[prefix] == pytest.approx(sum(values.values()) / 3)
        assert found[f"{metric}_oracle/eval_phase/test_stream"] == found[prefix]
        assert metrics.result()[metric] == found[prefix]
    assert found["category_accuracy/eval_phase/test_stream"] == pytest.approx(1 / 3)
    assert not any("forgetting" in name or "bwt" in name for name in found)
    assert all(type(value) is float for value in found.values())

    assert [entry["category"] for entry in metrics.history] == list(NAMES)
    entry = metrics.history[2]
    assert entry["step"] == 2
    assert entry["stream"] == "test"
    assert (entry["training_experience"], entry["experience"]) == (0, 1)
    assert entry["aupro"] == pytest.approx(expected[1, 2]["aupro"])
    assert set(metric_names()) < set(entry)
    found_at = [
        item[0].max() >= entry["image_threshold"]
        for item in benchmark.test_stream[1].dataset
    ]
    assert 0 < sum(found_at) < len(found_at)
    assert entry["pixel_threshold"] is not None


def test_every_minibatch_is_scored_once_per_mode(make_benchmark, make_strategy, model):
    benchmark = make_benchmark()
    strategy = make_strategy(anomaly_metrics(NAMES))
    strategy.eval(benchmark.test_stream)
    batches = 5 + 3  # 24 and 15 images in minibatches of 5
    assert model.calls.count("agnostic") == batches
    # where every category was inferred right, the oracle has nothing to add
    right = 2  # the first minibatches of experience 0 hold category 0 alone
    assert model.calls.count("oracle") == batches - right
    model.calls.clear()
    make_strategy(anomaly_metrics(NAMES, oracle=False)).eval(benchmark.test_stream)
    assert model.calls == ["agnostic"] * batches


def test_forgetting_is_the_value_when_learned_minus_the_last(
    make_benchmark, make_strategy, model
):
    benchmark = make_benchmark()
    (metrics,) = anomaly_metrics(NAMES, per_category=False)
    strategy = make_strategy(metrics)
    results = []
    for experience, skill in zip(benchmark.train_stream, [1.0, -1.0], strict=True):
        model.skill = skill
        strategy.train(experience, eval_streams=[])
        results.append(strategy.eval(benchmark.test_stream))
    name = "pixel_auroc{}/eval_phase/test_stream/Exp000"
    learned, last = results[0][name.format("")], results[1][name.format("")]
    assert last < 0.5 < learned  # never flipped
    assert results[1][name.format("_forgetting")] == pytest.approx(learned - last)
    assert results[1][name.format("_bwt")] == pytest.approx(last - learned)
    stream = "pixel_auroc_forgetting/eval_phase/test_stream"
    assert results[1][stream] == pytest.approx(learned - last)
    assert results[1][stream + "/Exp000"] > 0
    assert stream + "/Exp001" not in results[1]
    # category 1 is taken for category 0, whose scores were turned around, but is told
    oracle = "pixel_auroc_oracle_forgetting/eval_phase/test_stream/Exp000"
    assert 0.0 < results[1][oracle] < results[1][stream + "/Exp000"]

    matrix = result_matrix(metrics.history, "pixel_auroc")
    assert [len(row) for row in matrix] == [2, 2]
    assert matrix[0][0] == pytest.approx(learned)
    assert matrix[1][0] == pytest.approx(last)


def test_a_category_of_one_class_is_null_and_warned_of_once(
    make_benchmark, make_strategy
):
    benchmark = make_benchmark(flags={1: [0] * 6})
    (metrics,) = anomaly_metrics(NAMES)
    strategy = make_strategy(metrics)
    with pytest.warns(UndefinedMetricWarning, match="cable") as caught:
        strategy.eval(benchmark.test_stream)
    ours = [w for w in caught if w.category is UndefinedMetricWarning]
    assert len(ours) == 1
    assert "no anomalous image and no anomalous pixel" in str(ours[0].message)
    found = strategy.eval(benchmark.test_stream)  # a second warning would be an error
    prefix = "image_auroc/eval_phase/test_stream/Exp000"
    assert prefix + "/cable" not in found
    assert found[prefix] == found[prefix + "/bottle"]
    cable = next(entry for entry in metrics.history if entry["category"] == "cable")
    assert cable["image_auroc"] is None
    assert cable["aupro_oracle"] is None
    assert cable["category_accuracy"] == 0.0


def test_images_with_unknown_masks_are_no_part_of_pixel_metrics(
    make_benchmark, make_strategy
):
    # of category 0 one anomalous image is unknown, of category 1 (12 to 23) all
    unknown = [1, *range(14, 24, 3)]
    benchmark = make_benchmark(unknown=unknown)
    (metrics,) = anomaly_metrics(NAMES)
    found = make_strategy(metrics).eval(benchmark.test_stream)  # without any warning
    items = [benchmark.test_stream[0].dataset[i] for i in range(12) if i != 1]
    maps = np.stack([item[0].view(8, 8).numpy() for item in items])
    masks = np.stack([item[3].numpy() for item in items]).astype(bool)
    bottle, cable = metrics.history[:2]
    wanted = pixel_metrics(maps, masks)
    for suffix in ("", "_oracle"):
        assert bottle["pixel_auroc" + suffix] == wanted.auroc
        assert bottle["aupro" + suffix] == wanted.aupro
        for name in ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"):
            assert cable[name + suffix] is None
    assert cable["pixel_threshold"] is None
    whole = AnomalyMetrics(NAMES)
    make_strategy(whole).eval(make_benchmark().test_stream)
    for one, other in zip(metrics.history, whole.history, strict=True):
        same = ("image_auroc", "image_f1max", "image_threshold", "category_accuracy")
        assert [one[name] for name in same] == [other[name] for name in same]
    prefix = "aupro/eval_phase/test_stream/Exp000"
    assert prefix + "/cable" not in found
    assert found[prefix] == wanted.aupro


def test_metrics_of_ones_own_get_no_unknown_pixels(make_benchmark, make_strategy):
    class Marked(AnomalyMetric):
        name, level, needs_both = "marked", "pixel", False

        def compute(self, scores, labels):
            assert scores.shape == labels.shape
            return len(labels) + labels.mean()

    unknown = [1, *range(14, 24, 3)]
    (metrics,) = anomaly_metrics(NAMES, metrics=[Marked()], oracle=False)
    make_strategy(metrics).eval(make_benchmark(unknown=unknown).test_stream)
    values = [entry["marked"] for entry in metrics.history]
    assert values[1] is None
    assert [int(values[0]), int(values[2])] == [11, 15]


def test_an_experience_without_any_defined_value(make_benchmark, make_strategy):
    benchmark = make_benchmark(flags={2: [1, 1]})
    (metrics,) = anomaly_metrics(NAMES, metrics=DEFAULT_METRICS[:3])
    strategy = make_strategy(metrics)
    with pytest.warns(UndefinedMetricWarning, match="no normal image in"):
        found = strategy.eval(benchmark.test_stream[1:])
    assert not any(name.startswith("image") for name in found)
    assert metrics.history[0]["image_ap"] is None
    assert metrics.history[0]["training_experience"] is None


def test_only_the_selected_metrics_are_measured(make_benchmark, make_strategy):
    (metrics,) = anomaly_metrics(NAMES, metrics=["image_auroc"], oracle=False)
    strategy = make_strategy(metrics)
    found = strategy.eval(make_benchmark().test_stream)
    assert {name.split("/")[0] for name in found} == {"image_auroc"}


def test_training_experiences_are_not_measured(make_benchmark, make_strategy, model):
    benchmark = make_benchmark()
    (metrics,) = anomaly_metrics(NAMES)
    strategy = make_strategy(metrics, eval_every=1)
    strategy.train(benchmark.train_stream[0])
    assert metrics.history == []
    assert model.calls == []


def test_evaluation_inside_training_keeps_the_training_experience(
    make_benchmark, make_strategy
):
    benchmark = make_benchmark()
    (metrics,) = anomaly_metrics(NAMES)
    strategy = make_strategy(metrics, eval_every=1)
    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream])
    trained = [entry["training_experience"] for entry in metrics.history]
    assert trained == [None] * 3 + [0] * 3  # Avalanche evaluates before it trains too
    assert len(result_matrix(metrics.history, "aupro")) == 1


@pytest.mark.parametrize("with_task_ids", [False, True])
def test_stock_metrics_and_loggers_run_next_to_it(
    make_benchmark, make_strategy, tmp_path, capsys, with_task_ids
):
    benchmark = make_benchmark(with_task_ids=with_task_ids)
    text = io.StringIO()
    tensorboard = TensorboardLogger(tmp_path)
    strategy = make_strategy(
        anomaly_metrics(NAMES),
        accuracy_metrics(epoch=True, experience=True, stream=True),
        loss_metrics(minibatch=True, experience=True),
        forgetting_metrics(experience=True, stream=True),
        timing_metrics(epoch=True, experience=True),
        loggers=[TextLogger(text), InteractiveLogger(), tensorboard],
    )
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        found = strategy.eval(benchmark.test_stream)
    tensorboard.writer.close()
    assert "image_auroc/eval_phase/test_stream" in text.getvalue()
    assert "aupro_bwt" in capsys.readouterr().out
    assert any(name.startswith("Top1_Acc_Stream") for name in found)
    assert any(name.startswith("StreamForgetting") for name in found)
    assert list(tmp_path.glob("events*"))


def test_deepcopy_and_reset(make_benchmark, make_strategy):
    benchmark = make_benchmark()
    (metrics,) = anomaly_metrics(NAMES)
    make_strategy(metrics).eval(benchmark.test_stream)
    twin = copy.deepcopy(metrics)
    assert twin.history == metrics.history
    metrics.reset()
    assert metrics.history == []
    assert metrics.result() == {}
    assert len(twin.history) == 3


def test_memory_holds_no_scores_between_experiences(make_benchmark, make_strategy):
    (metrics,) = anomaly_metrics(NAMES)
    make_strategy(metrics).eval(make_benchmark().test_stream)
    assert metrics._gathered == {}


def test_wrong_arguments_and_models_are_refused(make_benchmark, make_strategy):
    with pytest.raises(
        AvalancheADError, match=r"unknown metric 'auroc' \(did you mean"
    ):
        AnomalyMetrics(NAMES, metrics=["auroc"])
    benchmark = make_benchmark()
    strategy = make_strategy(anomaly_metrics(NAMES[:1]))
    with pytest.raises(
        AvalancheADError, match="category index 1, and the names of 1 category were"
    ):
        strategy.eval(benchmark.test_stream)
    strategy = make_strategy(anomaly_metrics(NAMES), model=torch.nn.Linear(64, 3))
    with pytest.raises(AvalancheADError, match="model Linear has no method score"):
        strategy.eval(benchmark.test_stream)


def test_scores_that_are_not_finite_name_the_category(
    make_benchmark, make_strategy, model
):
    model.skill = float("nan")
    strategy = make_strategy(anomaly_metrics(NAMES))
    with pytest.raises(AvalancheADError, match="category 'bottle': expected finite"):
        strategy.eval(make_benchmark().test_stream)


def test_a_category_not_learned_has_no_oracle_score(
    make_benchmark, make_strategy, model
):
    model.known_categories = torch.tensor([0, 1])
    (metrics,) = anomaly_metrics(NAMES)
    make_strategy(metrics).eval(make_benchmark().test_stream)
    by_category = {entry["category"]: entry for entry in metrics.history}
    unseen = by_category.pop(NAMES[2])
    assert unseen["image_auroc_oracle"] is unseen["aupro_oracle"] is None
    assert unseen["image_auroc"] is not None
    assert all(entry["aupro_oracle"] is not None for entry in by_category.values())
