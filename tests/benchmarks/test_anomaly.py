import copy
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

from avalanche_ad.benchmarks import AnomalyBenchmark, anomaly_benchmark
from avalanche_ad.datasets import UNKNOWN, category_digests
from avalanche_ad.datasets.masks import resize_mask
from avalanche_ad.errors import DatasetError
from avalanche_ad.models import FlowGMM

SIZES = {"image_size": 16, "mask_size": 12}


@pytest.fixture
def build(data, backbone, cache):
    """Build a feature stream, or an image stream with ``backbone=None``."""

    def make(**options):
        options = {"n_experiences": 2, "backbone": backbone, "cache": cache} | options
        return anomaly_benchmark(options.pop("data", data), **(SIZES | options))

    return make


@pytest.fixture(params=["features", "images"])
def any_stream(request, build):
    def make(**options):
        extra = {} if request.param == "features" else {"backbone": None}
        return build(**extra, **options)

    return make


def test_items(any_stream, backbone):
    benchmark = any_stream()
    assert isinstance(benchmark, AnomalyBenchmark)
    features = benchmark.layout is not None
    if features:
        assert benchmark.layout == backbone.layout(16)
    shape = (benchmark.layout.size,) if features else (3, 16, 16)
    for stream, fields in ((benchmark.train_stream, 3), (benchmark.test_stream, 5)):
        assert len(stream) == 2
        for experience in stream:
            for item in experience.dataset:
                assert len(item) == fields
                assert item[0].shape == shape
                assert item[0].dtype is torch.float32
                assert isinstance(item[1], int)
                assert item[-1] == 0
    x, y, is_anomaly, mask, label = next(
        iter(DataLoader(benchmark.test_stream[0].dataset, batch_size=5))
    )
    assert x.shape == (5, *shape)
    assert y.dtype is torch.int64
    assert is_anomaly.dtype is torch.bool
    assert mask.shape == (5, 12, 12)
    assert mask.dtype is torch.bool
    assert label.tolist() == [0] * 5


@pytest.mark.parametrize("blurry", [0.0, 0.5])
def test_every_sample_is_in_the_stream_once(any_stream, data, blurry):
    benchmark = any_stream(n_experiences=3, blurry=blurry)
    for stream, split in (
        (benchmark.train_stream, "train"),
        (benchmark.test_stream, "test"),
    ):
        paths = [p for experience in stream for p in experience.dataset.path]
        expected = [str(s.path) for s in data.samples if s.split == split]
        assert sorted(paths) == sorted(expected)
        assert len(set(paths)) == len(paths)


def test_test_experiences_hold_the_categories_of_the_train_experiences(any_stream):
    benchmark = any_stream(n_experiences=3)
    expected = [{0, 1}, {2}, {3}]
    for stream in (benchmark.train_stream, benchmark.test_stream):
        found = [set(e.classes_in_this_experience) for e in stream]
        assert found == expected
        targets = [{int(item[1]) for item in e.dataset} for e in stream]
        assert targets == expected
    last = benchmark.train_stream[2]
    assert set(last.classes_seen_so_far) == {0, 1, 2, 3}
    assert set(benchmark.train_stream[0].future_classes) == {2, 3}


@pytest.mark.parametrize("return_task_id", [False, True])
def test_task_labels(any_stream, return_task_id):
    # an image's label is that of the experience it arrives in
    benchmark = any_stream(return_task_id=return_task_id, blurry=0.34)
    for stream in (benchmark.train_stream, benchmark.test_stream):
        for task, experience in enumerate(stream):
            label = task if return_task_id else 0
            assert experience.task_labels == [label]
            assert {int(item[-1]) for item in experience.dataset} == {label}


def test_blurry_boundaries_move_training_images_alone(any_stream):
    sharp = any_stream(n_experiences=3)
    benchmark = any_stream(n_experiences=3, blurry=0.34)  # one image of three
    assert benchmark.experiences == sharp.experiences
    assert benchmark.category_names == sharp.category_names
    homes = [{0, 1}, {2}, {3}]
    moved = 0
    for task, home in enumerate(homes):
        tested = benchmark.test_stream[task]
        assert set(tested.classes_in_this_experience) == home
        assert list(tested.dataset.path) == list(sharp.test_stream[task].dataset.path)
        targets = [int(item[1]) for item in benchmark.train_stream[task].dataset]
        for category in range(4):
            if category in home:
                assert targets.count(category) == 2
            else:
                moved += targets.count(category)
    assert moved == 4
    early = benchmark.train_stream[0]
    arrived = {int(item[1]) for item in early.dataset}
    assert set(early.classes_in_this_experience) == arrived
    assert set(early.future_classes) == set(range(4)) - arrived


def test_the_blurry_seed_decides_who_moves(any_stream):
    def paths(seed):
        stream = any_stream(n_experiences=3, blurry=0.34, blurry_seed=seed).train_stream
        return tuple(tuple(experience.dataset.path) for experience in stream)

    assert paths(1) == paths(1)
    assert len({paths(seed) for seed in range(4)}) > 1


def test_attributes_ride_along_outside_the_items(any_stream, data):
    benchmark = any_stream(blurry=0.5)
    by_path = {str(sample.path): sample for sample in data.samples}
    for stream in (benchmark.train_stream, benchmark.test_stream):
        for experience in stream:
            dataset = experience.dataset
            for index, item in enumerate(dataset):
                sample = by_path[dataset.path[index]]
                assert dataset.defect_type[index] == sample.defect_type
                assert benchmark.category_names[item[1]] == sample.category
                if len(item) == 5:
                    assert item[2] == sample.is_anomaly
                    wanted = resize_mask(data.mask(sample), 12)
                    assert np.array_equal(item[3].numpy(), wanted)


def test_x_belongs_to_its_sample(any_stream, data, backbone):
    benchmark = any_stream()
    by_path = {str(sample.path): sample for sample in data.samples}
    dataset = benchmark.test_stream[1].dataset
    for index, item in enumerate(dataset):
        pixels = data.image(by_path[dataset.path[index]]).astype(np.float32) / 255
        x = torch.from_numpy(pixels).permute(2, 0, 1)
        if benchmark.layout is not None:
            x = benchmark.layout.flatten(backbone(x[None]))[0]
        torch.testing.assert_close(item[0], x, rtol=1e-3, atol=1e-3)


def test_order_and_names(any_stream):
    benchmark = any_stream(class_order=["gear", "bolt", "cap"])
    assert benchmark.experiences == (("gear", "bolt"), ("cap",))
    assert benchmark.category_names == ("gear", "bolt", "cap")
    dataset = benchmark.train_stream[0].dataset
    assert dataset.path[0].split("/")[1] == "gear"
    assert dataset[0][1] == 0
    named = any_stream(n_experiences=None, experiences=[["cap"], ["dial", "bolt"]])
    assert named.category_names == ("cap", "dial", "bolt")


def test_seed_shuffles_and_leaves_the_global_generators_alone(any_stream):
    state = torch.get_rng_state()
    one, two = any_stream(seed=5), any_stream(seed=5)
    assert one.experiences == two.experiences
    assert torch.equal(state, torch.get_rng_state())
    assert sorted(one.category_names) == ["bolt", "cap", "dial", "gear"]
    orders = {any_stream(seed=seed).category_names for seed in range(6)}
    assert len(orders) > 1


def test_masks_are_of_the_image_size_by_default(any_stream):
    benchmark = any_stream(mask_size=None)
    assert benchmark.mask_size == 16
    assert benchmark.test_stream[0].dataset[0][3].shape == (16, 16)


def test_features_and_images_get_the_same_scores(build, backbone):
    features = build(feature_dtype="float32")
    images = build(backbone=None)
    model = FlowGMM(features.layout, couplings=2, condition_channels=4)
    model.attach_backbone(backbone, 16)
    model.add_categories([0, 1])

    def first(benchmark, stream):
        dataset = getattr(benchmark, stream)[0].dataset
        return next(iter(DataLoader(dataset, batch_size=100)))

    with torch.no_grad():
        model.calibrate([first(features, "train_stream")[:2]])
        found = [
            model.score(model(first(benchmark, "test_stream")[0]), (12, 12))
            for benchmark in (features, images)
        ]
    torch.testing.assert_close(found[0].maps, found[1].maps, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0].category, found[1].category)


def test_a_second_stream_calls_no_backbone(build, backbone):
    build()
    calls = backbone.calls
    assert calls > 0
    again = build(
        seed=3, return_task_id=True, classes_per_experience=1, n_experiences=None
    )
    assert backbone.calls == calls
    assert len(again.train_stream) == 4


def test_progress_is_reported(build):
    seen = []
    build(progress=lambda *call: seen.append(call))
    assert ("features of bolt", 7, 7) in seen
    assert {what for what, _, _ in seen} == {
        f"features of {name}" for name in ("bolt", "cap", "dial", "gear")
    }


def test_copies_of_a_data_set_copy_no_features(build):
    dataset = build().train_stream[0].dataset
    twin = copy.deepcopy(dataset)

    def maps(avalanche_dataset):
        found, stack = {}, [avalanche_dataset]
        while stack:
            part = stack.pop()
            stack += getattr(part, "_datasets", [])
            stack += [getattr(part, "_flat_data", None)] * hasattr(part, "_flat_data")
            if hasattr(part, "source"):
                found |= {id(cache): cache for cache, _ in part.source.rows}
        return list(found.values())

    mine, its = maps(dataset), maps(twin)
    assert len(mine) == len(its) == 2  # one per category, not one per image
    assert {cache.path for cache in its} == {cache.path for cache in mine}
    for cache in its:
        assert isinstance(cache.array, np.memmap)
    assert torch.equal(twin[3][0], dataset[3][0])


def test_unknown_masks_are_255_and_collate_with_the_others(any_stream, drawn):
    data = drawn()
    known = data.mask
    data.mask = lambda s: None if s.path.match("cap/test/hole/1.png") else known(s)
    benchmark = any_stream(data=data)
    both = ConcatDataset([one.dataset for one in benchmark.test_stream])
    _, _, is_anomaly, mask, _ = next(iter(DataLoader(both, batch_size=len(both))))
    assert mask.dtype is torch.uint8
    unknown = (mask == UNKNOWN).flatten(1)
    assert unknown.any(1).sum() == unknown.all(1).sum() == 1
    assert mask[~unknown.any(1)].max() == 1
    assert not mask[~is_anomaly].any()


def test_a_category_without_test_images_is_for_training(any_stream, drawn, caplog):
    data = drawn(leave_out=[("bolt", "test"), ("cap", "test"), ("gear", "test")])
    benchmark = any_stream(data=data, n_experiences=2)
    assert [len(one.dataset) for one in benchmark.train_stream] == [6, 6]
    assert [len(one.dataset) for one in benchmark.test_stream] == [0, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "no test image of 'bolt', 'cap', 'gear': training and predict only, metrics "
        "are null"
    ]


def test_a_category_without_training_images_is_told(build, drawn):
    data = drawn(leave_out=[("dial", "train")])
    with pytest.raises(DatasetError, match="'dial' of drawn has no train image"):
        build(data=data)
    names = ["bolt", "cap", "gear"]
    assert build(data=data, class_order=names).category_names == tuple(names)


def test_image_streams_are_verified_beforehand(build, drawn):
    data = drawn()
    data.broken = data.samples[-1]
    with pytest.raises(DatasetError, match=r"gear/test/hole/1.png: image of 4x4 pix"):
        build(data=data, backbone=None)


def test_checking_images_is_reported(build):
    seen = []
    build(backbone=None, progress=lambda *call: seen.append(call))
    assert seen[-1] == ("checking images", 28, 28)


def test_bad_splits_are_told(any_stream):
    with pytest.raises(DatasetError, match="expected 1 to 4"):
        any_stream(n_experiences=9)
    with pytest.raises(DatasetError, match="needs at least 2 experiences"):
        any_stream(n_experiences=1, blurry=0.1)


def test_digests_are_of_each_category_and_cost_no_other_reading(
    any_stream, data, monkeypatch
):
    calls = Counter()
    fingerprint = type(data).fingerprint

    def counted(self, sample):
        calls[sample] += 1
        return fingerprint(self, sample)

    expected = category_digests(data)
    monkeypatch.setattr(type(data), "fingerprint", counted)
    benchmark = any_stream()
    assert benchmark.digests == expected
    assert set(benchmark.digests) == set(benchmark.category_names)
    # an image stream is checked for leaks besides
    assert set(calls.values()) == {1 if benchmark.layout is not None else 2}


def test_digests_are_of_the_stream_alone(build):
    benchmark = build(n_experiences=None, experiences=[["cap"], ["gear"]])
    assert set(benchmark.digests) == {"cap", "gear"}
