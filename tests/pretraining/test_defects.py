import numpy as np
import pytest
import torch

from avalanche_ad.datasets import AnomalyData
from avalanche_ad.errors import DatasetError
from pretraining.defects import PhotographDefects
from pretraining.photographs import read_photographs


@pytest.fixture(scope="module")
def data(folder):
    images = read_photographs(folder, 20).images
    return PhotographDefects(images, 4, 48, 2, 2, 10)


def test_it_is_a_data_set(data):
    assert isinstance(data, AnomalyData)
    assert len(data.categories) == 4
    assert len(data.samples) == 4 * 14
    assert len({data.fingerprint(sample) for sample in data.samples}) == 4 * 14


def test_masks_are_where_defects_are(data):
    for sample in data.samples:
        image, mask = data.image(sample), data.mask(sample)
        assert image.shape == (48, 48, 3)
        assert image.dtype == np.uint8
        assert mask.shape == (48, 48)
        assert mask.any() == sample.is_anomaly
        assert mask.mean() < 0.5


def test_every_other_category_is_grey_but_for_noise(data):
    spread = {}
    for category in data.categories:
        images = [
            data.image(sample).reshape(-1, 3).mean(0)
            for sample in data.samples
            if sample.category == category
        ]
        spread[category] = np.ptp(np.mean(images, axis=0))
    for category, value in spread.items():
        assert (value < 2) == (int(category[-2:]) % 2 == 1), spread


def test_a_view_does_not_depend_on_the_order_of_access(folder, data):
    images = read_photographs(folder, 20).images
    again = PhotographDefects(images, 4, 48, 2, 2, 10)
    for sample in data.samples[::-5]:
        assert np.array_equal(again.image(sample), data.image(sample))
        assert np.array_equal(again.mask(sample), data.mask(sample))


def test_too_few_photographs_of_contrast_are_told():
    flat = torch.full((9, 3, 16, 16), 100, dtype=torch.uint8)
    with pytest.raises(DatasetError, match="0 photographs of enough contrast"):
        PhotographDefects(flat, 2)
