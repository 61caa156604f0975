"""Files that commands write are for whom the umask says, the key for its owner."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avalanche_ad.datasets import SyntheticAD, write_mvtec_layout
from avalanche_ad.features import FeatureLayout
from avalanche_ad.models import FeatureGMM
from avalanche_ad.models.storage import save_model


@pytest.fixture
def umask():
    before = os.umask(0)

    def set_to(mask):
        os.umask(mask)

    yield set_to
    os.umask(before)


def wrong_modes(folder: Path, mask: int) -> list[str]:
    """Return the files and folders below one that a umask does not explain."""
    found = []
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != (0o777 if path.is_dir() else 0o666) & ~mask:
            found.append(f"{mode:o} {path.relative_to(folder)}")
    return found


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_all_that_commands_write_has_the_mode_of_the_umask(
    cli, tiny_stream, tmp_path, monkeypatch, umask
):
    umask(0o027)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("AVALANCHE_AD_CACHE", str(tmp_path / "made" / "cache"))
    made = tmp_path / "made"
    made.mkdir()
    on = ("-b", tiny_stream, "--set", "training.epochs=1")
    assert not cli("compare", *on, "--strategies", "naive", "--out", made / "all").code
    run = made / "all" / "naive-seed0"
    images = made / "drawn"
    drawn = ("synthesize", images, "--size", 80, "--categories", "bolt")
    assert not cli(*drawn).code
    assert not cli("predict", run, images / "bolt" / "test" / "good").code
    assert not cli("report", made / "all").code
    names = {path.suffix for path in made.rglob("*")}
    assert names >= {".safetensors", ".json", ".csv", ".md", ".html", ".png", ".npy"}
    assert wrong_modes(made, 0o027) == []
    (key,) = (tmp_path / "state").rglob("checkpoint.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o002, 0o077])
def test_models_and_data_sets_have_it_too(tmp_path, umask, mask):
    umask(mask)
    (tmp_path / "run").mkdir()
    model = FeatureGMM(FeatureLayout(((2, 2, 3),)), 2)
    save_model(model, tmp_path / "run", "feature_gmm", {}, {})
    write_mvtec_layout(
        SyntheticAD(
            32, train_images=1, test_normals=1, test_anomalies=1, categories=["bolt"]
        ),
        tmp_path / "drawn",
    )
    assert wrong_modes(tmp_path, mask) == []
    kept = load_file(tmp_path / "run" / "model.safetensors")
    assert kept.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(kept[name], tensor)
