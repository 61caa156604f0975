import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avalanche_ad.benchmarks.items import (
    FeatureSource,
    ImageSource,
    PackedMasks,
    TestItems,
    TrainItems,
)

shapes = st.tuples(st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=50, deadline=None)
@given(
    masks=shapes.flatmap(
        lambda shape: st.lists(arrays(bool, shape), min_size=1, max_size=4)
    )
)
def test_masks_come_back_exactly(masks):
    packed = PackedMasks(masks)
    for index, mask in enumerate(masks):
        assert packed[index].dtype is torch.bool
        assert np.array_equal(packed[index].numpy(), mask)


def test_masks_take_a_bit_a_pixel_and_normal_ones_nothing():
    packed = PackedMasks([np.zeros((64, 64), bool), np.ones((64, 64), bool)])
    assert packed.bits[0] is None
    assert packed.bits[1].nbytes == 512
    assert PackedMasks([]).shape == (0, 0)


def test_images_are_resized_floats(data):
    source = ImageSource(data, data.samples[:2], 8)
    x = source[1]
    assert x.shape == (3, 8, 8)
    assert x.dtype is torch.float32
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    full = ImageSource(data, data.samples[:2], 16)[1]
    expected = data.image(data.samples[1]).astype(np.float32) / 255
    assert np.array_equal(full.permute(1, 2, 0).numpy(), expected)


def test_features_are_rows_of_several_caches():
    first, second = torch.zeros(2, 3), torch.ones(2, 3)
    source = FeatureSource([(first, 1), (second, 0)])
    assert torch.equal(source[0], first[1])
    assert torch.equal(source[1], second[0])


@pytest.mark.parametrize("kind", ["train", "test"])
def test_items_pickle_for_worker_processes(data, kind):
    samples = [s for s in data.samples if s.split == kind][:4]
    source = FeatureSource([(torch.arange(8.0).view(4, 2), row) for row in range(4)])
    if kind == "train":
        items = TrainItems(source, [0] * len(samples))
    else:
        masks = PackedMasks([data.mask(sample) for sample in samples])
        items = TestItems(source, [0] * 4, [s.is_anomaly for s in samples], masks)
    twin = pickle.loads(pickle.dumps(items))
    assert len(twin) == len(items) == len(samples)
    for mine, its in zip(items[1], twin[1], strict=True):
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(its))
