import copy
import errno
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from avalanche_ad.errors import CacheError, DatasetError
from avalanche_ad.features import FeatureCache
from avalanche_ad.features import cache as cache_module
from avalanche_ad.features.extraction import load_images


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache")


def build(cache, backbone, data, **options):
    samples = options.pop("samples", data.samples)
    return cache.features(backbone, data, samples, options.pop("size", 16), **options)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3)])
def test_cached_features_equal_direct_ones(cache, data, mean_colors, dtype, tolerance):
    backbone = mean_colors()
    features = build(cache, backbone, data, dtype=dtype, batch_size=2)
    direct = features.layout.flatten(backbone(load_images(data, data.samples, 16)))
    assert len(features) == len(data.samples)
    for index, expected in enumerate(direct):
        assert features[index].dtype == torch.float32
        torch.testing.assert_close(
            features[index], expected, rtol=tolerance, atol=tolerance
        )


def test_a_second_run_calls_no_backbone(cache, data, mean_colors):
    assert not build(cache, mean_colors(), data).hit
    backbone = mean_colors()
    features = build(cache, backbone, data)
    assert features.hit
    assert backbone.calls == 0


def test_progress_counts_images(cache, data, mean_colors):
    told = []
    build(
        cache,
        mean_colors(),
        data,
        batch_size=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_every_ingredient_makes_another_entry(cache, data, mean_colors):
    build(cache, mean_colors(), data)
    assert not build(cache, mean_colors(2.0), data).hit
    assert not build(cache, mean_colors(), data, size=8).hit
    assert not build(cache, mean_colors(), data, dtype="float32").hit
    assert not build(cache, mean_colors(), data, samples=data.samples[::-1]).hit
    assert not build(cache, mean_colors(), data, samples=data.samples[:4]).hit
    data.change(3)
    assert not build(cache, mean_colors(), data).hit
    assert len(cache.entries()) == 7


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[-7] ^= 255
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def forget_a_key(path):
    manifest = json.loads(path.read_bytes())
    del manifest["checksum"]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("features.npy", flip_a_byte),
        ("features.npy", truncate),
        ("features.npy", empty),
        ("features.npy", Path.unlink),
        ("manifest.json", truncate),
        ("manifest.json", forget_a_key),
        ("manifest.json", Path.unlink),
    ],
)
def test_damage_is_told_in_one_line_and_mended(
    cache, data, mean_colors, name, damage, caplog
):
    before = build(cache, mean_colors(), data).array.copy()
    (path,) = cache.root.glob(f"*/{name}")
    damage(path)
    with caplog.at_level(logging.WARNING):
        features = build(cache, mean_colors(), data)
    assert not features.hit
    np.testing.assert_array_equal(features.array, before)
    assert len(caplog.messages) == 1
    assert "damaged" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    assert build(cache, mean_colors(), data).hit


def test_copies_and_pickles_open_the_map_again(cache, data, mean_colors):
    features = build(cache, mean_colors(), data)
    assert len(pickle.dumps(features)) < 2000
    for other in (copy.deepcopy(features), pickle.loads(pickle.dumps(features))):
        np.testing.assert_array_equal(other.array, features.array)
        assert isinstance(other.array, np.memmap)


TWO_PROCESSES = """
import importlib.util, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("shared", sys.argv[1])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
from avalanche_ad.features import FeatureCache

class Slow(shared.MeanColors):
    def extract(self, images):
        time.sleep(0.3)
        return super().extract(images)

Path(sys.argv[3]).touch()
while not Path(sys.argv[4]).exists():
    time.sleep(0.01)
data, backbone = shared.DrawnData(), Slow()
features = FeatureCache(sys.argv[2]).features(
    backbone, data, data.samples, 16, batch_size=1
)
print(backbone.calls, float(features.array.sum(dtype="float64")))
"""


def test_two_processes_build_one_entry_once(cache, tmp_path):
    shared, go = Path(__file__).with_name("conftest.py"), tmp_path / "go"
    ready = [tmp_path / "ready0", tmp_path / "ready1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, shared, cache.root, flag, go],
            stdout=subprocess.PIPE,
            text=True,
        )
        for flag in ready
    ]
    while not all(flag.exists() for flag in ready):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)
    go.touch()
    output = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(calls for calls, _ in output) == ["0", "5"]
    assert output[0][1] == output[1][1]


def test_a_folder_that_cannot_be_written_is_told_with_the_remedy(
    tmp_path, data, mean_colors
):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CacheError, match=r"cannot be written .*--cache DIR") as caught:
        build(FeatureCache(tmp_path / "file" / "cache"), mean_colors(), data)
    assert "AVALANCHE_AD_CACHE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_an_entry_needs_no_writing(cache, data, mean_colors):
    build(cache, mean_colors(), data)
    shutil.rmtree(cache.root / "locks")
    (cache.root / "locks").write_text("in the way of any lock")
    assert build(cache, mean_colors(), data).hit
    with pytest.raises(CacheError, match="cannot be written"):
        build(cache, mean_colors(2.0), data)


def test_a_full_disk_is_told_beforehand(cache, data, mean_colors, monkeypatch):
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    backbone = mean_colors()
    with pytest.raises(CacheError, match=r"[kMG]B left, .*[kM]B needed"):
        build(cache, backbone, data)
    assert backbone.calls == 0
    assert not list(cache.root.glob("*/*.npy"))


@pytest.mark.parametrize(
    ("size", "said"),
    [(12, "0.01 kB"), (38_400, "38.40 kB"), (2_500_000, "2.50 MB"), (3e9, "3.00 GB")],
)
def test_a_size_is_told_in_a_unit_that_shows_it(size, said):
    assert cache_module._readable(size) == said


def test_a_disk_that_fills_up_leaves_no_part(cache, data, mean_colors, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CacheError, match="No space left on device"):
        build(cache, mean_colors(), data)
    assert not list(cache.root.glob("*/*.npy"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (DatasetError("image gone"), DatasetError),
        (FileNotFoundError("image gone"), FileNotFoundError),
    ],
)
def test_an_interrupted_build_leaves_no_part(
    cache, data, mean_colors, monkeypatch, error, expected
):
    whole = data.image

    def image(sample):
        if sample == data.samples[3]:
            raise error
        return whole(sample)

    with monkeypatch.context() as patch:
        patch.setattr(data, "image", image)
        with pytest.raises(expected):
            build(cache, mean_colors(), data, batch_size=2)
    assert not list(cache.root.glob("*/*.npy"))
    assert not build(cache, mean_colors(), data).hit


def test_values_beyond_float16_are_refused_with_the_image(cache, data, mean_colors):
    with pytest.raises(CacheError, match=r"0\.png .* not finite in float16; .*float32"):
        build(cache, mean_colors(1e6), data)
    assert build(cache, mean_colors(1e6), data, dtype="float32").array.max() > 65504


def test_unknown_precision_is_refused(cache, data, mean_colors):
    with pytest.raises(CacheError, match="float16 or float32, not 'int8'"):
        build(cache, mean_colors(), data, dtype="int8")


def test_entries_tell_what_the_cache_holds_and_clear_frees_it(cache, data, mean_colors):
    assert cache.entries() == []
    assert cache.clear() == 0
    build(cache, mean_colors(), data)
    build(cache, mean_colors(2.0), data)
    first, second = cache.entries()
    assert (first.backbone, first.dataset, first.images) == ("mean colors", "drawn", 5)
    assert first.bytes + second.bytes == cache.size()
    assert cache.clear([first.key]) == first.bytes
    assert [entry.key for entry in cache.entries()] == [second.key]
    assert cache.clear(unused_days=1) == 0
    assert cache.clear() == second.bytes
    assert cache.size() == 0


def test_clear_refuses_a_key_it_lacks_and_spares_foreign_folders(cache):
    (cache.root / "photos").mkdir(parents=True)
    with pytest.raises(CacheError, match="has no entry photos"):
        cache.clear(["photos"])
    cache.clear()
    assert (cache.root / "photos").is_dir()


def test_clear_removes_what_a_killed_run_left(cache, data, mean_colors):
    build(cache, mean_colors(), data)
    (entry,) = cache.entries()
    partial = cache.root / f"{'0' * 32}.partial"
    partial.mkdir()
    (partial / "features.npy").write_bytes(b"12345")
    assert cache.clear() == entry.bytes + 5
    assert not partial.exists()


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("AVALANCHE_AD_CACHE", str(tmp_path / "here"))
    assert FeatureCache().root == tmp_path / "here"
    assert FeatureCache(tmp_path / "there").root == tmp_path / "there"
    monkeypatch.delenv("AVALANCHE_AD_CACHE")
    assert FeatureCache().root.name == "avalanche_ad"
