import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_ad.datasets import AnomalyData, SyntheticAD
from avalanche_ad.datasets.painted import PaintedDefects
from avalanche_ad.datasets.painting import paint_defects
from avalanche_ad.datasets.readers.folder import FolderReader
from avalanche_ad.datasets.sample import Sample
from avalanche_ad.datasets.writing import write_mvtec_layout


def drawn(height=96, width=128, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(0, 10**6), st.sampled_from("cw")
)
def test_any_image_can_be_painted_on(height, width, seed, kind):
    image = drawn(height, width, seed)
    if kind == "w":
        image[:] = 255
    before = image.copy()
    painted, where = paint_defects(image, np.random.default_rng(seed))
    assert np.array_equal(image, before)
    assert (painted.shape, painted.dtype) == (image.shape, np.uint8)
    assert (where.shape, where.dtype) == (image.shape[:2], np.bool_)


def test_what_the_mask_leaves_out_looks_as_it_did():
    shares = []
    for seed in range(40):
        image = drawn(seed=seed)
        painted, where = paint_defects(image, np.random.default_rng(seed))
        change = np.abs(painted.astype(int) - image).max(-1)
        # but for soft edges, and what a later defect paints back
        assert (change[~where] <= 8).mean() > 0.95
        shares.append(where.mean())
    assert min(shares) < 0.005
    assert 0.01 < np.mean(shares) < 0.15
    assert np.mean([share > 0 for share in shares]) > 0.9


def test_a_grey_image_gets_grey_defects():
    image = np.repeat(drawn()[..., :1], 3, -1)
    for seed in range(30):
        painted, _ = paint_defects(image, np.random.default_rng(seed))
        spread = painted.max(-1).astype(int) - painted.min(-1)
        assert spread.max() <= 1


def test_seeds_decide():
    image = drawn()
    one, two, other = (
        paint_defects(image, np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])
    assert not np.array_equal(one[0], other[0])


@pytest.fixture
def data():
    counts = {"train_images": 3, "test_normals": 1, "test_anomalies": 1}
    return SyntheticAD(48, categories=["bolt", "gear"], **counts)


def test_it_is_a_data_set_of_the_training_images(data):
    painted = PaintedDefects(data)
    assert isinstance(painted, AnomalyData)
    assert painted.categories == data.categories
    normals = [one for one in data.samples if one.split == "train"]
    assert painted.samples == [painted.sample_of(one) for one in normals]
    for normal, sample in zip(normals, painted.samples, strict=True):
        assert sample.is_anomaly
        image, mask = painted.image(sample), painted.mask(sample)
        change = np.abs(image.astype(int) - data.image(normal)).max(-1)
        assert (change[mask] > 4).mean() > 0.8


def test_fingerprints_tell_images_from_painted_ones_and_from_each_other(data):
    painted = PaintedDefects(data)
    prints = [painted.fingerprint(one) for one in painted.samples]
    prints += [data.fingerprint(one) for one in data.samples]
    assert len(set(prints)) == len(prints)
    first = painted.samples[0]
    normal = next(one for one in data.samples if one.split == "train")
    known = painted.fingerprint_from(first, data.fingerprint(normal))
    assert known == painted.fingerprint(first)


def test_where_the_data_lies_does_not_matter(data, tmp_path):
    images = []
    for name in ("here", "there"):
        write_mvtec_layout(data, tmp_path / name)
        painted = PaintedDefects(FolderReader(tmp_path / name).open())
        painted = pickle.loads(pickle.dumps(painted))  # as a checkpoint does
        images.append([painted.image(one) for one in painted.samples])
    for one, other in zip(*images, strict=True):
        assert np.array_equal(one, other)


def test_masks_of_the_data_set_itself_are_not_asked_for():
    sample = Sample(Path("x.png"), "bolt", "train")
    assert PaintedDefects.sample_of(sample).mask_paths == ()
