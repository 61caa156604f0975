import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features import (
    BACKBONES,
    TimmBackbone,
    check_backbone,
    make_backbone,
)


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


@pytest.mark.parametrize(
    ("name", "size", "stages", "grid"),
    [
        ("vit_tiny_patch16_224", 64, (2, 5, 8), 4),
        ("deit_tiny_patch16_224", 48, (2, 5, 8), 3),
        ("deit_tiny_distilled_patch16_224", 48, (2, 5, 8), 3),
        ("vit_small_patch14_reg4_dinov2", 42, (2, 5, 8), 3),
        ("eva02_tiny_patch14_224", 42, (2, 5, 8), 3),
        ("test_vit", 64, (0, 2, 3), 4),
    ],
)
def test_plain_transformers_take_images_of_any_number_of_patches(
    name, size, stages, grid
):
    backbone = TimmBackbone(name, random=True)
    width = backbone.model.feature_info.channels()[0]
    assert backbone.stages == stages
    assert backbone.layout(size).levels == ((grid, grid, width),) * 3
    assert backbone.layout(2 * size).levels == ((2 * grid, 2 * grid, width),) * 3
    assert TimmBackbone(name, random=True, stages=stages).fingerprint() == (
        backbone.fingerprint()
    )


def test_positions_of_a_transformer_s_levels_are_those_of_its_patches():
    backbone = TimmBackbone("vit_small_patch14_reg4_dinov2", stages=[0], random=True)
    model = timm.create_model("vit_small_patch14_reg4_dinov2", dynamic_img_size=True)
    state = {**model.state_dict(), **backbone.model.model.state_dict()}
    model.load_state_dict(state)
    images = torch.rand(1, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    normal = (images - backbone.get_buffer("mean")) / backbone.get_buffer("std")
    with torch.no_grad():
        (tokens,) = model.eval().get_intermediate_layers(normal, n=[0])
    torch.testing.assert_close(backbone(images)[0].flatten(1, 2), tokens)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("swin_tiny_patch4_window7_224", ((8, 8, 192), (4, 4, 384), (2, 2, 768))),
        ("convnext_atto", ((8, 8, 80), (4, 4, 160), (2, 2, 320))),
    ],
)
def test_networks_of_many_strides_keep_their_stages(name, levels):
    backbone = TimmBackbone(name, random=True)
    assert backbone.stages == (1, 2, 3)
    assert backbone.layout(64).levels == levels


def test_form_hgad_takes_the_middle_of_a_plain_transformer():
    backbone = TimmBackbone("test_vit", form="hgad", random=True)
    assert backbone.stages == (2,)
    assert backbone.layout(64).levels == ((4, 4, 64), (2, 2, 64), (1, 1, 64))


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("test_vit", {}, 40, "patches of 16 pixels, .* multiple of 16, such as 32"),
        ("test_vit", {"form": "hgad"}, 80, "multiple of 64, such as 64"),
        ("swin_tiny_patch4_window7_224", {}, 62, "multiple of 4, such as 64"),
        ("cait_xxs24_224", {}, 64, "does not take images of 64 x 64 .*doesn't match"),
    ],
)
def test_a_size_the_model_does_not_take_is_told_in_one_line(
    name, options, size, message
):
    backbone = TimmBackbone(name, random=True, **options)
    with pytest.raises(RecipeError, match=message) as caught:
        backbone.layout(size)
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_of_image_are_resampled(tmp_path):
    model = timm.create_model("test_vit")
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    backbone = TimmBackbone("test_vit", weights=tmp_path / "vit.safetensors")
    stored = backbone.model.model.pos_embed
    torch.testing.assert_close(stored, model.pos_embed, check_stride=False)
    assert backbone.layout(64).levels == ((4, 4, 64),) * 3


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


WRONG = [
    ({}, "give exactly one of pretrained = true, weights = FILE or random"),
    ({"pretrained": True, "random": True}, "give exactly one of"),
    ({"random": True, "form": "hgda"}, "form should be 'stages' or 'hgad'"),
    ({"random": True, "form": "hgad", "stages": [1, 2]}, "exactly one stage"),
    ({"random": True, "stages": [2, 1]}, "rising numbers from"),
    ({"random": True, "stages": ["1"]}, "stages should be a valid integer, got"),
    ({"random": True, "stages": 2}, "stages should be a list, got 2"),
    ({"random": True, "stage": 2}, "has no option 'stage' .did you mean 'stages'"),
    ({"random": True, "name": "resnet34"}, "has no option 'name'"),
    ({"random": "yes"}, "random should be a valid boolean, got 'yes'"),
]
UNKNOWN = [
    ("timm:resnte18", "closest: resnet18"),
    ("timm:resnet18.foo_in9k", "Invalid pretrained tag .* resnet18 or resnet18.a1"),
    ("timm:<model>", "timm knows no such model"),
    ("timm:", "unknown backbone 'timm:'"),
    ("filterbanks", "did you mean 'filterbank'.*embedded, filterbank, timm:<model>"),
    ("nothing.Here", "backbone 'nothing.Here': there is no such class"),
    (3, "expected the name of a backbone, got 3"),
]


def check(name, /, **options):
    check_backbone(name, options)


@pytest.mark.parametrize("use", [make_backbone, check])
@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_are_told_in_one_line(use, options, message):
    with pytest.raises(RecipeError, match=message) as caught:
        use("timm:resnet18", **options)
    assert "\n" not in str(caught.value)


def test_stages_that_there_are_not():
    with pytest.raises(RecipeError, match=r"cannot give the stages \[1, 9\]"):
        make_backbone("timm:resnet18", random=True, stages=[1, 9])


@pytest.mark.parametrize("use", [make_backbone, check])
@pytest.mark.parametrize(("name", "message"), UNKNOWN)
def test_unknown_names_are_told_with_known_ones(use, name, message):
    with pytest.raises(RecipeError, match=message) as caught:
        use(name, random=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:vit_large_patch14_dinov2", {"pretrained": True}),
        ("timm:resnet18", {"weights": "nowhere.pth", "stages": [1, 3]}),
        ("timm:resnet18.a1_in1k", {"pretrained": True}),
        ("embedded", {"weights": "nowhere.safetensors", "strides": [8]}),
        ("filterbank", {"strides": 8}),
    ],
)
def test_a_check_builds_nothing_and_reads_no_weights(monkeypatch, name, options):
    def built(*args, **kwargs):
        raise AssertionError("something was built")

    monkeypatch.setattr(timm, "create_model", built)
    monkeypatch.setattr(torch.nn.Module, "__init__", built)
    check_backbone(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("filterbank", {"strides": [4, 5]}, r"out of \[4, 8, 16\], got \[4, 5\]"),
        ("filterbank", {"strides": "4"}, "strides should be a list, got '4'"),
        ("embedded", {"depth": 2}, "no option 'depth'; it takes strides, weights, "),
        ("embedded", {"whiten": 1}, "whiten should be a valid boolean, got 1"),
        ("embedded", {"weights": 1}, "weights should be "),
    ],
)
def test_wrong_options_of_the_others(name, options, message):
    with pytest.raises(RecipeError, match=message) as caught:
        check_backbone(name, options)
    assert "\n" not in str(caught.value)


def test_names_lead_to_backbones():
    assert BACKBONES.names()[:3] == ("embedded", "filterbank", "timm:<model>")
    assert make_backbone("filterbank", strides=[4, 8]).name == "filterbank"
    assert make_backbone("timm:resnet18", random=True).name == "timm:resnet18"


OWN = """
from avalanche_ad.features import Backbone

class Colors(Backbone):
    name = "colors"

    def __init__(self, gain: float, stride: int = 4):
        super().__init__()
        self.gain, self.stride = gain, stride
        assert stride > 0, "a stride of nothing"
        self.freeze()

    def describe(self):
        return {"kind": self.name, "gain": self.gain, "stride": self.stride}

    def extract(self, images):
        step = self.stride
        return [images[:, :, ::step, ::step].permute(0, 2, 3, 1) * self.gain]
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "colors_beside.py").write_text(OWN)
    return tmp_path


def test_a_backbone_beside_the_recipe(own):
    name = "colors_beside.Colors"
    check_backbone(name, {"gain": 2.0}, own)
    backbone = make_backbone(name, own, gain=2.0, stride=8)
    assert backbone.layout(64).levels == ((8, 8, 3),)
    for options, message in (
        ({}, "needs the option 'gain'"),
        ({"gain": "much"}, "gain should be a valid number, got 'much'"),
    ):
        with pytest.raises(RecipeError, match=message):
            check_backbone(name, options, own)
    with pytest.raises(RecipeError, match="cannot be built: a stride"):
        make_backbone(name, own, gain=1, stride=0)


def test_fingerprints_are_those_of_earlier_runs():
    assert make_backbone("embedded").fingerprint()[:12] == "ca83be157fc6"
    assert make_backbone("filterbank").fingerprint()[:12] == "492c5b0e43f7"
