"""sPRO against its definition, and from a data set that knows its regions to a run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from avalanche_ad.benchmarks import anomaly_benchmark
from avalanche_ad.datasets import Sample
from avalanche_ad.datasets.regions import Region
from avalanche_ad.errors import AvalancheADError
from avalanche_ad.evaluation.detection import UndefinedMetricWarning, aupro
from avalanche_ad.evaluation.measures.spro import SPRO
from avalanche_ad.evaluation.metrics import AnomalyMetrics
from avalanche_ad.evaluation.saturated_overlap import (
    au_spro,
    connected_regions,
    mean_au_spro,
)


def brute_force(maps, regions, limit):
    """Evaluate the definition at every distinct threshold, one after the other."""
    defective = np.zeros(maps.shape, dtype=bool)
    drawn = [(i, r) for i, own in enumerate(regions) for r in own if r.mask.any()]
    for index, region in drawn:
        defective[index] |= region.mask
    rate, overlap = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        found = maps >= threshold
        rate.append(np.mean(found[~defective]))
        overlap.append(
            np.mean(
                [
                    min(
                        (found[i] & r.mask).sum() / (r.saturation * r.mask.sum()),
                        1.0,
                    )
                    for i, r in drawn
                ]
            )
        )
    area = 0.0
    for k in range(1, len(rate)):
        left, right = rate[k - 1], min(rate[k], limit)
        if right <= left:
            continue
        slope = (overlap[k] - overlap[k - 1]) / (rate[k] - rate[k - 1])
        end = overlap[k - 1] + slope * (right - left)
        area += (right - left) * (overlap[k - 1] + end) / 2
    return area / limit


values = st.one_of(
    st.sampled_from([-3.0, -0.5, 0.0, 0.1, 2.0]), st.floats(-1e6, 1e6, width=32)
)


@st.composite
def scored_regions(draw):
    """Maps and overlapping regions of theirs, some empty; one pixel is normal."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 5)))
    maps = draw(hnp.arrays(np.float64, shape, elements=values))
    regions = []
    for _ in range(shape[0]):
        own = []
        for _ in range(draw(st.integers(0, 3))):
            mask = draw(hnp.arrays(bool, shape[1:]))
            mask.flat[-1] = False
            own.append(Region(mask, draw(st.sampled_from([0.05, 0.5, 0.7, 1.0]))))
        regions.append(own)
    first = np.zeros(shape[1:], dtype=bool)
    first.flat[0] = True
    regions[0].append(Region(first))
    return maps, regions


@settings(max_examples=100, deadline=None)
@given(scored_regions(), st.sampled_from([0.05, 0.3, 0.5, 1.0]))
def test_equals_the_definition(samples, limit):
    maps, regions = samples
    expected = brute_force(maps, regions, limit)
    assert au_spro(maps, regions, limit) == pytest.approx(expected, abs=1e-9)


def random_maps(seed=0, count=4, size=24):
    generator = np.random.default_rng(seed)
    maps = generator.normal(size=(count, size, size))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, 2:9, 3:8] = masks[0, 15:18, 3:20] = masks[1, :5, :5] = True
    return maps + masks, masks


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_without_saturation_it_is_aupro(limit):
    maps, masks = random_maps()
    found = au_spro(maps, connected_regions(masks), limit)
    assert found == pytest.approx(aupro(maps, masks, limit))
    assert SPRO(limit).compute(maps, masks) == found


def test_a_saturated_region_cannot_be_found_any_better():
    mask = np.zeros((1, 10, 10), dtype=bool)
    mask[0, :2] = True
    maps = np.zeros((1, 10, 10))
    maps[0, 0, :5] = 1.0  # a quarter of the region, and nothing else
    for share, expected in ((0.25, 1.0), (0.5, 0.5), (1.0, 0.25)):
        # from there on a straight line to the top right corner
        rising = (1 - expected) * 0.05 / 2
        found = au_spro(maps, [[Region(mask[0], share)]], 0.05)
        assert found == pytest.approx(expected + rising)


def test_kinds_are_measured_apart_with_the_normal_images_of_both():
    maps, masks = random_maps()
    of_kind = {0: "logical", 1: "structural"}
    regions = [
        [Region(one.mask, 0.5, of_kind[index]) for one in own]
        for index, own in enumerate(connected_regions(masks))
    ]
    apart = [au_spro(maps[[i, 2, 3]], [regions[i], [], []]) for i in (0, 1)]
    assert mean_au_spro(maps, regions) == pytest.approx(np.mean(apart))
    assert mean_au_spro(maps, regions) != pytest.approx(au_spro(maps, regions))


@pytest.mark.parametrize(("filled", "what"), [(False, "region"), (True, "normal pixe")])
def test_undefined(filled, what):
    regions = [[Region(np.ones((3, 3), dtype=bool))] if filled else []]
    with pytest.warns(UndefinedMetricWarning, match=f"no {what}"):
        assert mean_au_spro(np.zeros((1, 3, 3)), regions) is None


@pytest.mark.parametrize(
    ("count", "region", "limit", "words"),
    [
        (2, Region(np.ones((3, 3), dtype=bool)), 0.05, "regions of N images"),
        (1, Region(np.ones((2, 3), dtype=bool)), 0.05, "size .3, 3., got .2, 3."),
        (1, Region(np.ones((3, 3), dtype=bool), 0.0), 0.05, "saturation in"),
        (1, Region(np.ones((3, 3), dtype=bool)), 0.0, "fpr_limit in"),
    ],
)
def test_what_is_refused(count, region, limit, words):
    with pytest.raises(AvalancheADError, match=words):
        au_spro(np.zeros((1, 3, 3)), [[region]] * count, limit)


SIZE = 16


class Drawn:
    """Random images in memory, with regions that overlap."""

    name = "drawn"
    categories = ("bolt", "gear")

    def __init__(self):
        self.samples = [
            Sample(Path(category, split, kind, f"{n}.png"), category, split, kind)
            for category in self.categories
            for split, kind, count in (
                *(("train", "good", 2), ("test", "good", 2)),
                *(("test", "logical", 2), ("test", "structural", 2)),
            )
            for n in range(count)
        ]

    def image(self, sample):
        generator = np.random.default_rng(list(str(sample.path).encode()))
        return generator.integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def regions(self, sample):
        if not sample.is_anomaly:
            return []
        masks = np.zeros((2, SIZE, SIZE), dtype=bool)
        top = int(sample.path.stem)
        masks[0, top : top + 6, 2:9] = masks[1, 4:12, 5:8] = True
        return [
            Region(masks[0], 0.25, sample.defect_type),
            Region(masks[1], 1.0, sample.defect_type),
        ]

    def mask(self, sample):
        drawn = np.zeros((SIZE, SIZE), dtype=bool)
        for region in self.regions(sample):
            drawn |= region.mask
        return drawn

    def fingerprint(self, sample):
        return hashlib.sha256(self.image(sample).tobytes()).hexdigest()


class Brightness(nn.Module):
    """Scores a pixel by its brightness at mask size."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        output = self.weight * torch.zeros(len(x), 2)
        output.images = x.detach().mean(1)
        return output

    def score(self, output, mask_size, category=None):
        maps = nn.functional.interpolate(output.images[:, None], mask_size)[:, 0]
        inferred = torch.zeros(len(maps), dtype=torch.long)
        used = inferred if category is None else category
        return SimpleNamespace(image=maps.amax((1, 2)), maps=maps, category=used)


def test_a_run_measures_the_regions_of_the_data_set(make_strategy):
    data = Drawn()
    stream = anomaly_benchmark(data, n_experiences=2, image_size=SIZE, mask_size=8)
    metrics = AnomalyMetrics(data.categories, metrics=["spro", "aupro"])
    strategy = make_strategy(metrics, model=Brightness())
    for _ in range(2):
        strategy.eval(stream.test_stream)
    assert len(metrics.history) == 4
    for row in metrics.history:
        own = [
            s
            for s in data.samples
            if (s.category, s.split) == (row["category"], "test")
        ]
        images = [torch.from_numpy(data.image(s)).permute(2, 0, 1) / 255 for s in own]
        maps = torch.stack(images).mean(1)
        maps = nn.functional.interpolate(maps[:, None], (8, 8))[:, 0].numpy()
        regions = [[r.resized(8) for r in data.regions(s)] for s in own]
        assert row["spro"] == pytest.approx(mean_au_spro(maps, regions))
        assert row["spro_oracle"] == row["spro"]
        assert row["spro"] != pytest.approx(row["aupro"])


def test_images_in_another_order_are_refused(make_strategy):
    data = Drawn()
    stream = anomaly_benchmark(data, n_experiences=2, image_size=SIZE)
    metrics = AnomalyMetrics(data.categories, metrics=["spro"])
    strategy = make_strategy(metrics, model=Brightness())
    torch.manual_seed(0)
    with pytest.raises(AvalancheADError, match="in the experience's order, without"):
        strategy.eval(stream.test_stream, shuffle=True)


def test_without_regions_masks_are_taken(make_benchmark, make_strategy):
    names = ["a", "b", "c"]
    metrics = AnomalyMetrics(names, metrics=[SPRO(0.3), "aupro"], oracle=False)
    make_strategy(metrics).eval(make_benchmark().test_stream)
    for row in metrics.history:
        assert row["spro"] == pytest.approx(row["aupro"])
