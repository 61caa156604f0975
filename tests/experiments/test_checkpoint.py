"""Checkpoints are signed, whole, and hold the random generators."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from platformdirs import user_state_path

from avalanche_ad.errors import ResultsError
from avalanche_ad.experiments.checkpoint import (
    load_checkpoint,
    restore_generators,
    save_checkpoint,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "checkpoint"
    save_checkpoint(path, {"answer": 42})
    return path


def draws():
    return random.random(), np.random.rand(), float(torch.rand(1))  # noqa: NPY002


def test_what_was_saved_is_loaded(file):
    assert load_checkpoint(file)["answer"] == 42


def test_a_run_goes_on_with_the_random_numbers_it_would_have_drawn(file):
    save_checkpoint(file, {})
    expected = draws()
    assert draws() != expected
    restore_generators(load_checkpoint(file))
    assert draws() == expected


def test_loading_alone_changes_no_generator(file):
    draws()
    state = torch.get_rng_state()
    load_checkpoint(file)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_optimizer_goes_through(tmp_path):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "checkpoint", {"optimizer": optimizer})
    loaded = load_checkpoint(tmp_path / "checkpoint")["optimizer"]
    assert isinstance(loaded, torch.optim.Adam)
    assert loaded.state_dict()["state"][0]["step"] == 1


class Loader:
    """Draws when it is asked, as the loader of a memory does."""

    def __init__(self, low):
        self.low = low

    def __iter__(self):
        while True:
            yield self.low + random.random()


def test_an_iterator_that_has_not_started_goes_through(file):
    loader = Loader(5)
    random.seed(1)
    save_checkpoint(file, {"loader": loader, "iterator": iter(loader)})
    expected = next(iter(loader))
    loaded = load_checkpoint(file)
    restore_generators(loaded)
    assert next(loaded["iterator"]) == expected > 5
    assert loaded["iterator"].gi_frame.f_locals["self"] is loaded["loader"]


def test_an_iterator_that_has_started_does_not(file):
    iterator = iter(Loader(5))
    next(iterator)
    with pytest.raises(TypeError, match="generator"):
        save_checkpoint(file, {"iterator": iterator})


def test_loading_prints_nothing(file, capsys):
    save_checkpoint(file, {"device": torch.device("cpu")})
    assert load_checkpoint(file)["device"] == torch.device("cpu")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("byte", [0, 31, 32, -1])
def test_a_changed_byte_is_noticed(file, byte):
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(content)
    with pytest.raises(ResultsError, match="damaged"):
        load_checkpoint(file)


@pytest.mark.parametrize("size", [0, 10, 32, 100])
def test_a_cut_file_is_noticed(file, size):
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ResultsError, match="damaged"):
        load_checkpoint(file)


def test_no_file_is_no_checkpoint(tmp_path):
    assert load_checkpoint(tmp_path / "checkpoint") is None


def test_another_users_key_does_not_open_it(file, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with pytest.raises(ResultsError, match="another user"):
        load_checkpoint(file)


def test_the_key_is_readable_by_the_user_alone(file):
    key = user_state_path("avalanche_ad") / "checkpoint.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == 32


class Fragile:
    """Refers to a file, as cached features do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.read_text, (self.path,))


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_key_that_is_none_never_signs(file, content):
    """An empty one is what a full disk or a kill leaves; anybody could sign with it."""
    key = user_state_path("avalanche_ad") / "checkpoint.key"
    kept = key.read_bytes()
    key.write_bytes(content)
    try:
        with pytest.raises(ResultsError):
            load_checkpoint(file)
        save_checkpoint(file, {"answer": 43})
        made = key.read_bytes()
        assert len(made) == 32
        assert made != kept
        assert load_checkpoint(file)["answer"] == 43
        assert [path.name for path in key.parent.iterdir()] == [key.name]
    finally:
        key.write_bytes(kept)


def test_a_checkpoint_that_refers_to_what_is_gone_is_told(tmp_path):
    target = tmp_path / "features"
    target.write_text("here")
    save_checkpoint(tmp_path / "checkpoint", {"data": Fragile(target)})
    assert load_checkpoint(tmp_path / "checkpoint")["data"] == "here"
    target.unlink()
    with pytest.raises(ResultsError, match="refers to has changed: .*features"):
        load_checkpoint(tmp_path / "checkpoint")


def test_a_crash_keeps_the_checkpoint_before(file):
    with pytest.raises(TypeError):
        save_checkpoint(file, {"generator": (number for number in range(3))})
    assert load_checkpoint(file)["answer"] == 42
