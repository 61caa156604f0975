import copy

import pytest
import torch
from avalanche.benchmarks.scenarios import ExperienceMode
from avalanche.benchmarks.scenarios.generic_scenario import MaskedAttributeError
from torch.utils.data import DataLoader

from avalanche_ad.benchmarks import anomaly_benchmark


@pytest.fixture(params=["features", "images"])
def build(request, data, backbone, cache):
    def make(**options):
        if request.param == "features":
            options = {"backbone": backbone, "cache": cache} | options
        given = {"n_experiences": 2, "image_size": 16, "mask_size": 12, "painted": True}
        return anomaly_benchmark(data, **(given | options))

    return make


def test_train_experiences_bring_their_images_painted_on(build):
    benchmark = build()
    for experience in benchmark.train_stream:
        normals, painted = experience.dataset, experience.painted
        assert painted.targets == list(normals.targets)
        x, y, is_anomaly, mask = next(iter(DataLoader(painted, batch_size=6)))
        assert x[0].shape == normals[0][0].shape
        assert y.tolist() == list(normals.targets)
        assert is_anomaly.all()
        assert mask.shape == (6, 12, 12)
        assert mask.any((1, 2)).float().mean() > 0.5
        changed = [
            not torch.equal(item[0], normal[0])
            for item, normal in zip(painted, normals, strict=True)
        ]
        assert sum(changed) > len(changed) / 2
    assert not hasattr(benchmark.test_stream[0], "painted")
    assert not hasattr(build(painted=False).train_stream[0], "painted")


def test_they_are_there_in_training_alone(build):
    experience = copy.copy(build().train_stream[0])
    experience._exp_mode = ExperienceMode.TRAIN
    assert len(experience.painted) == 6
    experience._exp_mode = ExperienceMode.EVAL
    with pytest.raises(MaskedAttributeError):
        _ = experience.painted


def test_masks_are_painted_once(build):
    painted = build().train_stream[0].painted
    first = [item[3] for item in painted]
    painted.masks.data = None
    assert all(
        torch.equal(item[3], mask) for item, mask in zip(painted, first, strict=True)
    )


def test_a_blurry_stream_paints_what_arrives(build):
    benchmark = build(blurry=0.5)
    for experience in benchmark.train_stream:
        assert experience.painted.targets == list(experience.dataset.targets)


def test_experiences_learned_elsewhere_bring_none(build):
    benchmark = build(learned=[["ring"]])
    found = [len(experience.painted) for experience in benchmark.train_stream]
    assert found == [0, 6, 6]


def test_they_go_through_the_backbone_once(data, backbone, cache):
    calls = []
    for _ in range(2):
        anomaly_benchmark(
            data,
            n_experiences=2,
            image_size=16,
            backbone=backbone,
            cache=cache,
            painted=True,
        )
        calls.append(backbone.calls)
    assert calls[0] == calls[1]
