import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features import EmbeddedBackbone, make_backbone
from avalanche_ad.features.embedded import METADATA_KEY, Architecture, Trunk, metadata

SIZES = Architecture(4, (4, 6, 8), (1, 2, 1))


def write_weights(path, sizes=SIZES, strides=(4, 8), **changes):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        trunk = Trunk(sizes)
    tensors = {f"trunk.{key}": value for key, value in trunk.state_dict().items()}
    tensors |= {"mean": torch.full((3,), 0.5), "std": torch.full((3,), 0.25)}
    for stride in strides:
        width = sizes.channels[sizes.strides.index(stride)]
        tensors[f"mean_{stride}"] = torch.linspace(0, 1, width)
        tensors[f"matrix_{stride}"] = torch.eye(width) * 2
    tensors |= changes
    tensors = {key: value for key, value in tensors.items() if value is not None}
    save_file(tensors, path, metadata(sizes, {"seed": 0}))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "own.safetensors")


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_levels_are_the_stages_of_the_strides(weights, images):
    backbone = make_backbone("embedded", weights=weights)
    assert backbone.strides == (4, 8)
    assert [tuple(level.shape) for level in backbone(images)] == [
        (3, 16, 16, 6),
        (3, 8, 8, 8),
    ]
    assert backbone.layout(64).levels == ((16, 16, 6), (8, 8, 8))


def test_a_choice_of_strides_gives_the_same_levels(weights, images):
    both = EmbeddedBackbone(weights=weights)(images)
    for index, stride in enumerate((4, 8)):
        (one,) = EmbeddedBackbone([stride], weights=weights)(images)
        assert torch.equal(one, both[index])


def test_stages_behind_the_last_stride_are_left_out(weights):
    assert len(EmbeddedBackbone([4], weights=weights).trunk.stages) == 2


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


def test_without_weights_it_says_where_to_get_them():
    with pytest.raises(WeightsError, match="no weights of its own yet; give weights"):
        make_backbone("embedded")


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
                {"a": torch.zeros(1)}, path, described({"format": 2})
            ),
            "another version .format 2, expected 1",
        ),
        (
            lambda path: save_file({"a": torch.zeros(1)}, path, described([1])),
            "description is damaged",
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
            r"'matrix_8' has shape \(5, 5\), expected \(8, 8\)",
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
