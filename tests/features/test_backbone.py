import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features import TimmBackbone, make_backbone


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(1)
    model = timm.create_model("resnet18")
    # BatchNorm's starting statistics would hide whether they are read.
    for key, value in model.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def weights(resnet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    state = resnet.state_dict()
    save_file(state, folder / "resnet18.safetensors")
    torch.save(state, folder / "plain.pth")
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        folder / "wrapped.pth",
    )
    headless = {key: value for key, value in state.items() if not key.startswith("fc.")}
    save_file(headless, folder / "headless.safetensors")
    return folder


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name",
    ["resnet18.safetensors", "plain.pth", "wrapped.pth", "headless.safetensors"],
)
def test_local_weights_give_the_features_of_their_model(resnet, weights, images, name):
    backbone = TimmBackbone("resnet18", stages=(1, 2), weights=weights / name)
    mean = torch.tensor(resnet.pretrained_cfg["mean"])[:, None, None]
    std = torch.tensor(resnet.pretrained_cfg["std"])[:, None, None]
    with torch.no_grad():
        x = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1((images - mean) / std))))
        first = resnet.layer1(x)
        expected = [first, resnet.layer2(first)]
    for level, reference in zip(backbone(images), expected, strict=True):
        torch.testing.assert_close(level, reference.permute(0, 2, 3, 1))


def test_the_same_weights_have_one_fingerprint_whatever_their_file(weights):
    one = TimmBackbone("resnet18", weights=weights / "resnet18.safetensors")
    other = TimmBackbone("resnet18", weights=str(weights / "wrapped.pth"))
    drawn = TimmBackbone("resnet18", random=True)
    fewer = TimmBackbone("resnet18", random=True, stages=[1, 2])
    assert one.fingerprint() == other.fingerprint()
    assert len({one.fingerprint(), drawn.fingerprint(), fewer.fingerprint()}) == 3


def test_form_hgad_gives_one_stage_of_three_scales(images):
    backbone = TimmBackbone("resnet18", form="hgad", random=True)
    levels = backbone(images)
    assert [level.shape[1:] for level in levels] == [
        (8, 8, 128),
        (4, 4, 128),
        (2, 2, 128),
    ]
    assert backbone.layout(64).levels == tuple(tuple(x.shape[1:]) for x in levels)
    small = torch.nn.functional.interpolate(
        images, (32, 32), mode="bilinear", antialias=True
    )
    single = TimmBackbone("resnet18", stages=(2,), random=True)
    torch.testing.assert_close(levels[1], single(small)[0])


@pytest.mark.parametrize(
    ("name", "size"),
    [("swin_tiny_patch4_window7_224", 224), ("vit_tiny_patch16_224", 224)],
)
def test_transformers_give_channels_last_too(name, size):
    backbone = TimmBackbone(name, stages=(0, 1), random=True)
    channels = [width for *_, width in backbone.layout(size).levels]
    assert channels == backbone.model.feature_info.channels()
    height, width, _ = backbone.layout(size).levels[0]
    assert height == width


def test_a_size_the_model_does_not_take_is_told_in_one_line():
    backbone = TimmBackbone("vit_tiny_patch16_224", stages=(1,), random=True)
    with pytest.raises(RecipeError, match="does not take images of 64 x 64") as caught:
        backbone.layout(64)
    assert "\n" not in str(caught.value)


def test_batch_norm_stands_still_in_training_mode(images):
    backbone = TimmBackbone("resnet18", random=True)
    before = backbone.fingerprint()
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    backbone(images)
    assert backbone.fingerprint() == before
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_random_weights_follow_their_seed_and_leave_the_global_state():
    state = torch.get_rng_state()
    one, other = (TimmBackbone("resnet18", random=True, seed=s) for s in (1, 2))
    again = TimmBackbone("resnet18", random=True, seed=1)
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    assert torch.equal(state, torch.get_rng_state())


class Harmful:
    def __reduce__(self):
        return (print, ("code of a weight file was run",))


def write_other_model(path):
    save_file(timm.create_model("resnet34").state_dict(), path)


def write_wider_model(path):
    state = timm.create_model("resnet18").state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(32, 64, 3, 3)
    save_file(state, path)


def write_missing_layer(path):
    state = timm.create_model("resnet18").state_dict()
    del state["layer3.0.conv1.weight"]
    save_file(state, path)


def write_truncated(path):
    torch.save(timm.create_model("resnet18").state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


def write_truncated_safetensors(path):
    save_file({"weight": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("x.safetensors", write_other_model, "holds 96 .* lacks, the first is"),
        ("x.safetensors", write_wider_model, "has shape .*32, 64.* expected .*64, 64"),
        ("x.safetensors", write_missing_layer, "first is 'layer3.0.conv1.weight'"),
        ("x.pth", write_truncated, "damaged or holds more than tensors"),
        ("x.safetensors", write_truncated_safetensors, "cannot be read"),
        ("x.pth", lambda path: path.write_bytes(pickle.dumps(Harmful())), "damaged or"),
        (
            "x.pth",
            lambda path: torch.save([1, 2], path),
            "holds list, expected a state",
        ),
        ("x.pth", lambda path: path.write_text("hello"), "damaged or"),
        ("x.pth", lambda path: None, "does not exist"),
        ("x.pth", lambda path: path.mkdir(), "does not exist"),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, capsys, name, write, message):
    write(tmp_path / name)
    with pytest.raises(WeightsError, match=message) as caught:
        TimmBackbone("resnet18", weights=tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "was run" not in capsys.readouterr().out


def test_a_failed_download_names_the_way_without_a_network(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("We couldn't connect to the hub\nand a second line")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"fetched .*weights = FILE") as caught:
        TimmBackbone("resnet18", pretrained=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of pretrained = true, weights = FILE or random"),
        ({"pretrained": True, "random": True}, "give exactly one of"),
        ({"random": True, "form": "hgda"}, "unknown form 'hgda'"),
        ({"random": True, "form": "hgad", "stages": [1, 2]}, "exactly one stage"),
        ({"random": True, "stages": [2, 1]}, "rising numbers from"),
        ({"random": True, "stages": ["1"]}, "rising numbers from"),
        ({"random": True, "stages": 2}, "rising numbers from"),
        ({"random": True, "stages": [1, 9]}, r"cannot give the stages \[1, 9\]"),
        ({"random": True, "stage": 2}, "has no option 'stage'; it takes stages, form"),
    ],
)
def test_wrong_options_are_told_in_one_line(options, message):
    with pytest.raises(RecipeError, match=message) as caught:
        make_backbone("timm:resnet18", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnte18", "closest: resnet18"),
        ("timm:resnet18.foo_in9k", "Invalid pretrained tag"),
        ("timm:", "unknown backbone 'timm:'"),
        ("filterbanks", "expected one of embedded, filterbank, timm:<model>"),
    ],
)
def test_unknown_names_are_told_with_known_ones(name, message):
    with pytest.raises(RecipeError, match=message):
        make_backbone(name, random=True)


def test_names_lead_to_backbones():
    assert make_backbone("filterbank", strides=[4, 8]).name == "filterbank"
    assert make_backbone("timm:resnet18", random=True).name == "timm:resnet18"
