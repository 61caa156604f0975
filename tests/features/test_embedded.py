import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import avg_pool2d, interpolate

import avalanche_ad
from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features import EmbeddedBackbone, FilterBank, make_backbone
from avalanche_ad.features.backbones.embedded import (
    METADATA_KEY,
    Columns,
    metadata,
    stacked_channels,
)
from avalanche_ad.features.residual_trunk import ResidualArchitecture

SIZES = ResidualArchitecture(4, (4, 6, 8), (1, 2, 1))
PLAIN = Columns((4, 8), window=1, filters=False, channels=0)


def write_weights(path, columns=PLAIN, strides=(4, 8), **changes):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        trunk = SIZES.trunk()
    tensors = {f"trunk.{key}": value for key, value in trunk.state_dict().items()}
    tensors |= {"mean": torch.full((3,), 0.5), "std": torch.full((3,), 0.25)}
    width = sum(stacked_channels(SIZES, columns))
    for stride in strides:
        tensors[f"mean_{stride}"] = torch.linspace(0, 1, width)
        tensors[f"matrix_{stride}"] = torch.eye(width, columns.channels or width) * 2
    tensors |= changes
    tensors = {key: value for key, value in tensors.items() if value is not None}
    save_file(tensors, path, metadata(SIZES, columns, {"seed": 0}))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "own.safetensors")


@pytest.fixture
def images():
    return torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def test_a_level_stacks_stages_on_its_grid(weights, images):
    backbone = make_backbone("embedded", weights=weights, whiten=False)
    assert backbone.strides == (4, 8)
    assert backbone.layout(96).levels == ((24, 24, 14), (12, 12, 14))
    views = (images - 0.5) / 0.25
    with torch.no_grad():
        _, four, eight = backbone.trunk(views)
    fine, coarse = (level.permute(0, 3, 1, 2) for level in backbone(images))
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(fine[:, :6], four, **close)
    torch.testing.assert_close(coarse[:, 6:], eight, **close)
    torch.testing.assert_close(coarse[:, :6], avg_pool2d(four, 2), **close)
    up = interpolate(eight, (24, 24), mode="bilinear")
    torch.testing.assert_close(fine[:, 6:], up, **close)


def test_a_window_averages_neighbours_of_stages_no_coarser(images, tmp_path):
    columns = Columns((4, 8), 3, filters=False, channels=0)
    path = write_weights(tmp_path / "own.safetensors", columns)
    backbone = EmbeddedBackbone(weights=path, whiten=False)
    fine, coarse = (level.permute(0, 3, 1, 2) for level in backbone(images))
    with torch.no_grad():
        _, four, eight = backbone.trunk((images - 0.5) / 0.25)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(fine[:, :6][inner], avg_pool2d(four, 3, 1))
    torch.testing.assert_close(coarse[:, 6:][inner], avg_pool2d(eight, 3, 1))
    plain = interpolate(eight, (24, 24), mode="bilinear")
    torch.testing.assert_close(fine[:, 6:], plain)


def test_the_filter_bank_is_stacked_too(images, tmp_path):
    columns = Columns((8,), filters=True, channels=10)
    path = write_weights(tmp_path / "own.safetensors", columns)
    backbone = EmbeddedBackbone(weights=path)
    assert backbone.layout(96).levels == ((24, 24, 10), (12, 12, 10))
    raw = EmbeddedBackbone(weights=path, whiten=False)(images)
    bank = FilterBank((4, 8), whiten=False)(images)
    for level, filtered in zip(raw, bank, strict=True):
        assert level.shape[3] == 8 + 45
        assert torch.equal(level[..., 8:], filtered)


def test_a_choice_of_strides_gives_the_same_levels(weights, images):
    both = EmbeddedBackbone(weights=weights)(images)
    for index, stride in enumerate((4, 8)):
        (one,) = EmbeddedBackbone([stride], weights=weights)(images)
        assert torch.equal(one, both[index])


@pytest.mark.parametrize("size", [80, 97, 100, 130])
def test_any_size_gives_the_layout_it_announces(tmp_path, size):
    columns = Columns((2, 4, 8))
    path = write_weights(tmp_path / "own.safetensors", columns)
    backbone = EmbeddedBackbone(weights=path, whiten=False)
    levels = backbone(torch.rand(1, 3, size, size))
    shapes = tuple(tuple(level.shape[1:]) for level in levels)
    assert shapes == backbone.layout(size).levels
    assert shapes[0][:2] == (-(-size // 4), -(-size // 4))


def test_small_images_are_refused_with_the_size_needed(tmp_path):
    columns = Columns((8,), filters=True, channels=10)
    path = write_weights(tmp_path / "own.safetensors", columns)
    with pytest.raises(RecipeError, match="64 x 64 pixels are too small.* take 80"):
        EmbeddedBackbone(weights=path)(torch.rand(1, 3, 64, 64))


def test_whitening_is_what_the_file_says(weights, images):
    plain = EmbeddedBackbone(weights=weights, whiten=False)(images)
    white = EmbeddedBackbone(weights=weights)(images)
    for raw, level in zip(plain, white, strict=True):
        offset = torch.linspace(0, 1, raw.shape[-1])
        torch.testing.assert_close(level, (raw - offset) * 2)


def test_an_image_does_not_depend_on_its_batch(weights, images):
    backbone = EmbeddedBackbone(weights=weights)
    for whole, alone in zip(backbone(images), backbone(images[:1]), strict=True):
        torch.testing.assert_close(whole[:1], alone, rtol=1e-4, atol=1e-4)


def test_nothing_trains_and_the_name_of_the_file_decides_nothing(weights, tmp_path):
    first = EmbeddedBackbone(weights=weights)
    copied = tmp_path / "renamed.safetensors"
    shutil.copy(weights, copied)
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert first.fingerprint() == EmbeddedBackbone(weights=copied).fingerprint()
    other = EmbeddedBackbone([4], weights=weights)
    assert first.fingerprint() != other.fingerprint()


def test_half_precision_on_disk_is_full_precision_in_memory(tmp_path, weights):
    half = {key: value.half() for key, value in load_file(weights).items()}
    path = write_weights(tmp_path / "half.safetensors", **half)
    backbone = EmbeddedBackbone(weights=path)
    assert {value.dtype for value in backbone.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("strides", [[], [2], [8, 4], [4, 4], 5, "48"])
def test_strides_without_statistics_are_refused(weights, strides):
    with pytest.raises(RecipeError, match=r"rising numbers out of \[4, 8\]"):
        EmbeddedBackbone(strides, weights=weights)


def test_the_package_holds_weights_with_a_card(images):
    backbone = make_backbone("embedded")
    path = Path(avalanche_ad.__file__).parent / "features/data/embedded.safetensors"
    assert path.stat().st_size <= 8e6
    assert "Apache License 2.0" in backbone.card["source"]
    assert (path.parent / "embedded.LICENSE.txt").is_file()
    for level in backbone(images):
        assert level.isfinite().all()


def test_the_page_about_it_says_what_the_card_says():
    """docs/embedded_backbone.md is kept in step with the weight file."""
    root = Path(avalanche_ad.__file__).parents[1]
    page = (root / "docs/embedded_backbone.md").read_text("utf-8")
    path = root / "avalanche_ad/features/data/embedded.safetensors"
    card = make_backbone("embedded").card
    assert hashlib.sha256(path.read_bytes()).hexdigest() in page
    for key in ("model", "source", "weights_sha256"):
        assert card[key] in page, key
    # the module has moved since the file was made
    moved = ("avalanche_ad.pretraining.adopt", "avalanche_ad.features.weights.adopt")
    assert card["command"].replace(*moved) in page


def described(sizes):
    return {METADATA_KEY: json.dumps(sizes)}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "does not exist"),
        (lambda path: path.write_bytes(b"\x00" * 64), "cannot be read as safetensors"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-100]),
            "cannot be read as safetensors",
        ),
        (
            lambda path: save_file({"fc.weight": torch.zeros(1)}, path),
            "not of the embedded backbone",
        ),
        (
            lambda path: save_file(
                {"a": torch.zeros(1)}, path, described({"format": 1})
            ),
            "another version .format 1, expected 2",
        ),
        (
            lambda path: save_file({"a": torch.zeros(1)}, path, described([1])),
            "description is damaged",
        ),
        (
            lambda path: save_file(
                {"a": torch.zeros(1)},
                path,
                described({"format": 2, "architecture": {"kind": "dense"}}),
            ),
            "another version .a network of kind 'dense'",
        ),
        (
            lambda path: save_file(
                {"a": torch.zeros(1)},
                path,
                described({"format": 2, "architecture": ["a"]}),
            ),
            "description is damaged",
        ),
        (
            lambda path: save_file(
                {"a": torch.zeros(1)},
                path,
                described(
                    {
                        "format": 2,
                        "architecture": {
                            "kind": "inverted",
                            "stem": 4,
                            "blocks": [],
                            "same": True,
                        },
                    }
                ),
            ),
            "stages without blocks",
        ),
        (
            lambda path: write_weights(path, **{"trunk.stem.bias": None}),
            "'trunk.stem.bias' is missing",
        ),
        (
            lambda path: write_weights(path, **{"trunk.stem.bias": torch.zeros(9)}),
            r"'trunk.stem.bias' has shape \(9,\), expected \(4,\)",
        ),
        (
            lambda path: write_weights(path, **{"matrix_8": torch.eye(5)}),
            r"'matrix_8' has shape \(5, 5\), expected \(14, 14\)",
        ),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path, damage, message):
    path = write_weights(tmp_path / "own.safetensors")
    damage(path)
    with pytest.raises(WeightsError, match=message) as caught:
        EmbeddedBackbone(weights=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
