"""Bytes that strategies keep, against bytes counted by hand."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import (
    AGEMPlugin,
    EvaluationPlugin,
    EWCPlugin,
    GEMPlugin,
    LwFPlugin,
    ReplayPlugin,
)
from avalanche.training.supervised import DER, Cumulative, JointTraining, Naive
from torch.utils.data import TensorDataset

from avalanche_ad.benchmarks import anomaly_benchmark
from avalanche_ad.datasets import SyntheticAD
from avalanche_ad.experiments.accounting import KINDS, memory_bytes, memory_mb
from avalanche_ad.features import FeatureCache, make_backbone
from avalanche_ad.training import (
    DynamicFeatureGMM,
    DynamicFlowGMM,
    FlowGMMLoss,
    make_optimizer,
)
from avalanche_ad.training.plugins import (
    CalibrationPlugin,
    FitFeatureGMMPlugin,
    SynapticIntelligencePlugin,
)

CATEGORIES = ["bolt", "brush", "carpet_weave"]
IMAGES = 5  # of a category


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Three tasks of one category."""
    data = SyntheticAD(
        80, categories=CATEGORIES, train_images=IMAGES, test_normals=2, test_anomalies=2
    )
    return anomaly_benchmark(
        data,
        classes_per_experience=1,
        image_size=80,
        mask_size=16,
        backbone=make_backbone("filterbank"),
        cache=FeatureCache(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture
def learn(benchmark):
    """Train a strategy of some plugins on the stream, and count."""

    def call(*plugins, cls=Naive, experiences=3, made=DynamicFlowGMM, **options):
        # whose tables would grow when calibrated, after plugins have copied the model
        room = {"num_categories": len(CATEGORIES), "position_calibration": False}
        if made is DynamicFlowGMM:
            room |= {"couplings": 1, "condition_channels": 4, "centers_per_category": 2}
        model = made(benchmark.layout, **room)
        strategy = cls(
            model=model,
            optimizer=make_optimizer(model, lr=1e-3),
            criterion=FlowGMMLoss(),
            train_mb_size=4,
            eval_mb_size=8,
            plugins=[*plugins, CalibrationPlugin()],
            evaluator=EvaluationPlugin(loggers=[], strict_checks=False),
            **options,
        )
        if made is DynamicFeatureGMM:
            strategy.train_epochs = 0
        train = benchmark.train_stream[:experiences]
        for experience in [train] if cls is JointTraining else train:
            strategy.train(experience)
        strategy.eval(benchmark.test_stream[:experiences])
        return strategy, memory_bytes(strategy, benchmark, "float16")

    return call


def size(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def weights(strategy):
    return size(strategy.model.parameters())


def of_model(strategy):
    return weights(strategy) + size(strategy.model.buffers())


@pytest.fixture
def image(benchmark):
    """Bytes of one image's features, as numbers of a size."""
    return lambda itemsize: benchmark.layout.size * itemsize


def test_naive_keeps_its_model_alone(learn, benchmark):
    strategy, sizes = learn()
    expected = {"exemplars": 0, "statistics": 0, "parameters": of_model(strategy)}
    assert sizes == expected
    in_mb = memory_mb(strategy, benchmark, "float16")
    assert set(in_mb) == set(KINDS)
    assert in_mb["parameters"] == round(expected["parameters"] / 1e6, 3) > 0


def test_separate_ewc_keeps_two_copies_an_experience(learn):
    strategy, sizes = learn(EWCPlugin(1.0))
    copies = 2 * 3 * weights(strategy)
    assert sizes["parameters"] == of_model(strategy) + copies
    assert sizes["exemplars"] == sizes["statistics"] == 0


def test_online_ewc_keeps_two_copies(learn):
    strategy, sizes = learn(EWCPlugin(1.0, mode="online", decay_factor=0.5))
    assert sizes["parameters"] == of_model(strategy) + 2 * weights(strategy)


def test_lwf_keeps_a_second_model(learn):
    strategy, sizes = learn(LwFPlugin())
    assert sizes["parameters"] == 2 * of_model(strategy)


def test_si_keeps_six_copies(learn):
    plugin = SynapticIntelligencePlugin(1.0)
    strategy, sizes = learn(plugin, experiences=2)
    # the parameters of before the experience and of before the step, importance,
    # gradient and two trajectories; those of after the step are the model's own on a
    # CPU, where Avalanche's plugin takes all three for them
    assert sizes["parameters"] == of_model(strategy) + 6 * weights(strategy)


def test_replay_keeps_images_as_the_cache_does(learn, benchmark, image):
    plugin = ReplayPlugin(mem_size=4)
    strategy, sizes = learn(plugin)
    drawn = 3 * IMAGES * 4  # a weight per image that competed for a place
    assert sizes["exemplars"] == 4 * image(2) + drawn
    assert sizes["parameters"] == of_model(strategy)
    # what two memories share is there once
    shared = ReplayPlugin(4, storage_policy=plugin.storage_policy)
    strategy.plugins.append(shared)
    assert memory_bytes(strategy, benchmark, "float16") == sizes


def test_agem_keeps_images_of_every_experience(learn, image):
    strategy, sizes = learn(AGEMPlugin(patterns_per_experience=2, sample_size=3))
    assert sizes["exemplars"] == 3 * 2 * image(2)
    # the reference gradient of the last step stays
    assert sizes["parameters"] == of_model(strategy) + weights(strategy)


def test_gem_keeps_copies_of_images(learn, image):
    strategy, sizes = learn(GEMPlugin(2, 0.5), experiences=2)
    assert sizes["exemplars"] == 2 * 2 * image(4)
    labels = 2 * 2 * 2 * 8
    assert sizes["parameters"] == of_model(strategy) + labels + weights(strategy)


def test_der_keeps_logits_beside_the_images(learn, image):
    strategy, sizes = learn(cls=DER, mem_size=4, batch_size_mem=2)
    logits = 4 * len(CATEGORIES) * 4
    assert len(strategy.storage_policy.buffer) == 4
    drawn = 3 * IMAGES * 4
    assert sizes["exemplars"] == 4 * image(2) + logits + drawn


@pytest.mark.parametrize("cls", [Cumulative, JointTraining])
def test_all_earlier_images_are_kept(learn, image, cls):
    strategy, sizes = learn(cls=cls)
    assert sizes["exemplars"] == 2 * IMAGES * image(2)
    assert sizes["parameters"] == of_model(strategy)


def test_a_feature_mixture_is_statistics(learn):
    strategy, sizes = learn(FitFeatureGMMPlugin(), made=DynamicFeatureGMM)
    assert sizes["statistics"] == size(strategy.model.buffers()) > 0
    assert sizes["parameters"] == sizes["exemplars"] == 0


@dataclass(slots=True)
class Moments:
    mean: torch.Tensor
    scatter: np.ndarray


class Keeper(SupervisedPlugin):
    """Keeps what it is given."""

    def __init__(self, kept, memory_kind=None):
        super().__init__()
        self.kept = kept
        self.memory_kind = memory_kind


@pytest.fixture
def extra(learn, benchmark):
    """Count what a thing adds when a plugin keeps it."""

    def call(kept, **options):
        strategy, before = learn(experiences=1)
        strategy.plugins.append(Keeper(kept, **options))
        after = memory_bytes(strategy, benchmark, "float16")
        return {kind: after[kind] - before[kind] for kind in KINDS}

    return call


@pytest.mark.parametrize("declared", [None, *KINDS])
def test_what_a_plugin_keeps_is_found_wherever_it_lies(extra, declared):
    moments = Moments(torch.zeros(7), np.zeros((2, 3), dtype=np.float32))
    deep = {"a": [(moments,), {3: SimpleNamespace(x={torch.zeros(5)})}]}
    added = extra(deep, memory_kind=declared)
    expected = dict.fromkeys(KINDS, 0)
    expected[declared or "parameters"] = 4 * (7 + 6 + 5)
    assert added == expected


def test_a_storage_counts_once_and_in_full(extra):
    whole = torch.zeros(10)
    added = extra([whole[:2], whole, whole.view(5, 2), torch.zeros(3)[:1]])
    assert added["parameters"] == 4 * (10 + 3)


def test_cycles_end(extra):
    ring = [torch.zeros(2)]
    ring.append({"again": ring})
    assert extra(ring)["parameters"] == 8


def test_images_of_its_own_count_as_they_are(extra, benchmark, image):
    size = benchmark.layout.size
    drawn = TensorDataset(torch.zeros(3, size), torch.zeros(3, dtype=torch.int64))
    added = extra(AvalancheDataset([drawn]).subset([0, 2]))
    assert added["exemplars"] == 3 * (image(4) + 8)  # the third is still there
    old = benchmark.train_stream[0].dataset
    assert extra([old.subset([1, 2]), old.subset([2])])["exemplars"] == 2 * image(2)
    both = AvalancheDataset([AvalancheDataset([drawn]), old.subset([1])])
    assert extra(both)["exemplars"] == 3 * (image(4) + 8) + image(2)


def test_what_passes_is_not_counted(learn, benchmark):
    strategy, before = learn(experiences=1)
    strategy.mbatch = [torch.zeros(4, benchmark.layout.size)]
    strategy.mb_output = torch.zeros(9)
    strategy.experience = benchmark.train_stream[0]
    strategy.plugins.append(Keeper([strategy.optimizer, strategy, np.random]))
    assert strategy.optimizer.state  # Adam's moments
    assert memory_bytes(strategy, benchmark, "float16") == before
