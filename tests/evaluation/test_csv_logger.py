import copy
import csv

import numpy as np
import pytest
import torch
from avalanche.evaluation.metrics import loss_metrics

from avalanche_ad.errors import ResultsError
from avalanche_ad.evaluation.csv_logger import COLUMNS, TidyCSVLogger
from avalanche_ad.evaluation.metrics import anomaly_metrics
from avalanche_ad.evaluation.registry import metric_names

NAMES = ("bottle", "cable", "capsule")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_per_value(make_benchmark, make_strategy, tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    benchmark = make_benchmark(with_task_ids=True)
    with TidyCSVLogger(path) as logger:
        strategy = make_strategy(
            anomaly_metrics(NAMES), loss_metrics(epoch=True), loggers=[logger]
        )
        strategy.eval(benchmark.test_stream)
        untrained = len(read(path))
        for experience in benchmark.train_stream:
            strategy.train(experience, eval_streams=[])
            found = strategy.eval(benchmark.test_stream)
    rows = read(path)
    assert tuple(rows[0]) == COLUMNS
    count = len(metric_names())
    assert untrained == count * (3 + 2 + 1)
    forgotten = 2 * count * 2  # forgetting and transfer, of experience 0 and the stream
    losses = 2
    assert len(rows) == 3 * untrained + forgotten + losses

    assert {row["training_experience"] for row in rows[:untrained]} == {""}
    last = rows[-1]
    assert (last["training_experience"], last["experience"]) == ("1", "")
    by_key = {
        (row["metric"], row["experience"], row["category"]): row
        for row in rows
        if row["training_experience"] == "1"
    }
    row = by_key["aupro", "1", "capsule"]
    name = "aupro/eval_phase/test_stream/Task001/Exp001/capsule"
    assert float(row["value"]) == found[name]
    assert row["stream"] == "test"
    assert row["step"] == "3"
    assert by_key["Loss_Epoch", "", ""]["stream"] == "train"


def test_values_are_exact_and_only_single_numbers_are_kept(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = TidyCSVLogger(path)
    for index, value in enumerate(
        [0.1, np.float64(1 / 3), np.float32(0.5), torch.tensor([2.5]), 3]
    ):
        logger.log_single_metric("m", value, index)
    for value in ["text", None, torch.zeros(2), object()]:
        logger.log_single_metric("skipped", value, 0)
    assert read(path) == []
    logger.close()
    values = [row["value"] for row in read(path)]
    assert values == ["0.1", repr(1 / 3), "0.5", "2.5", "3"]
    logger.close()
    assert len(read(path)) == 5


def test_names_with_commas_and_categories_that_look_like_parts(tmp_path):
    path = tmp_path / "metrics.csv"
    with TidyCSVLogger(path) as logger:
        logger.log_single_metric("m/eval_phase/test_stream/Exp003/a,b", 1.0, 7)
    (row,) = read(path)
    assert row["category"] == "a,b"
    assert row["experience"] == "3"


def test_a_file_is_continued_after_its_last_complete_line(tmp_path):
    path = tmp_path / "metrics.csv"
    with TidyCSVLogger(path) as logger:
        logger.log_single_metric("m", 0.25, 1)
    complete = path.read_bytes()
    path.write_bytes(complete + b"2,,,,test,m,0.1")
    with TidyCSVLogger(path) as logger:
        assert path.read_bytes() == complete
        logger.log_single_metric("m", 0.5, 2)
    assert [row["value"] for row in read(path)] == ["0.25", "0.5"]
    path.write_bytes(b"step,trai")
    TidyCSVLogger(path)
    assert read(path) == []


def test_another_file_is_not_touched(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match=r"expected a metrics file with the columns"):
        TidyCSVLogger(path)
    assert path.read_text() == "a,b\n1,2\n"


def test_an_unwritable_path_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write the metrics file") as error:
        TidyCSVLogger(tmp_path / "file" / "metrics.csv")
    assert "\n" not in str(error.value)
    logger = TidyCSVLogger(tmp_path / "gone" / "metrics.csv")
    (tmp_path / "gone" / "metrics.csv").unlink()
    (tmp_path / "gone").rmdir()
    logger.log_single_metric("m", 1.0, 0)
    with pytest.raises(ResultsError, match="choose a writable path"):
        logger.flush()


def test_deepcopy(tmp_path):
    logger = TidyCSVLogger(tmp_path / "metrics.csv")
    assert copy.deepcopy(logger).path == logger.path


def test_rows_are_on_disk_after_an_evaluation_without_closing(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = TidyCSVLogger(path)
    logger.log_single_metric("m", 0.5, 1)
    logger.after_eval(None, [])
    logger.log_single_metric("m", 0.6, 2)
    assert [row["value"] for row in read(path)] == ["0.5"]
