import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from avalanche_ad.errors import RecipeError, WeightsError
from avalanche_ad.features import EmbeddedBackbone
from avalanche_ad.features.inverted_trunk import InvertedArchitecture
from avalanche_ad.features.weights import adopt

MODELS = ["tf_efficientnet_lite0", "mobilenetv2_050"]


def network(name, **options):
    """Return a model of timm whose normalisation does something."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = timm.create_model(name, **options).eval()
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 2)
                module.bias.data.normal_(0, 0.2)
    return made


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [64, 97, 102])
def test_the_folded_network_is_timms(name, size):
    whole = network(name)
    parts = network(name, features_only=True, out_indices=(0, 1, 2, 3))
    parts.load_state_dict(whole.state_dict(), strict=False)
    trunk = adopt.folded_trunk(whole, name)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = parts(images), trunk(images)
    assert len(found) == 5  # to stride 32
    for one, other in zip(found, expected, strict=False):
        assert one.std() > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_an_architecture_survives_json_and_ends_at_a_stride(name):
    sizes = adopt.folded_trunk(network(name), name).architecture
    content = json.loads(json.dumps(sizes.to_json()))
    assert InvertedArchitecture.from_json(content) == sizes
    short = sizes.up_to(8)
    assert short.strides == (2, 4, 8)
    assert short.channels == sizes.channels[:3]
    keys = {
        k
        for k in sizes.trunk().state_dict()
        if not k.startswith(("stages.3", "stages.4"))
    }
    assert set(short.trunk().state_dict()) == keys


@pytest.mark.parametrize(
    "name", ["efficientnet_b0", "mobilenetv3_small_050", "resnet10t", "convnext_atto"]
)
def test_other_networks_are_refused(name):
    with pytest.raises(RecipeError, match=f"{name} is not of inverted.*timm:{name}"):
        adopt.folded_trunk(timm.create_model(name), name)


@pytest.mark.parametrize("rename", [False, True])
def test_weights_are_taken_by_name_or_in_order(tmp_path, rename):
    source, target = network("mobilenetv2_050"), timm.create_model("mobilenetv2_050")
    state = dict(source.state_dict())
    if rename:
        state = {
            f"layer{i}": value
            for i, value in enumerate(
                value for key, value in state.items() if "num_batches" not in key
            )
        }
    adopt.load_tensors(target, state, tmp_path / "own.pth")
    for key, value in target.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, source.state_dict()[key]), key


def without_last(state):
    state.popitem()


def with_one_more(state):
    state["more"] = torch.zeros(1)


def with_another_shape(state):
    state["conv_stem.weight"] = torch.zeros(3, 3, 3, 3)


@pytest.mark.parametrize("change", [without_last, with_one_more, with_another_shape])
def test_other_weights_are_refused_and_nothing_is_taken(tmp_path, change):
    target = timm.create_model("mobilenetv2_050")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = dict(network("mobilenetv2_050").state_dict())
    change(state)
    with pytest.raises(WeightsError, match="own.pth does not hold the tensors"):
        adopt.load_tensors(target, state, tmp_path / "own.pth")
    for key, value in target.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.fixture
def call(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    few = torch.rand(6, 3, 128, 128, generator=generator)
    monkeypatch.setattr(adopt, "drawn_images", lambda: few)
    app = adopt.typer.Typer()
    app.command()(adopt.main)

    def run(*arguments):
        return CliRunner().invoke(app, [*map(str, arguments)])

    return run


@pytest.fixture
def weights(tmp_path):
    state = network("mobilenetv2_050").state_dict()
    save_file(state, tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


def test_a_network_of_timm_becomes_a_backbone(call, weights, tmp_path):
    out = tmp_path / "out"
    options = ("--level-channels", 20, "--strides", "8,16", "--source", "drawn, CC0")
    done = call("mobilenetv2_050", "--weights", weights, "--out", out, *options)
    assert done.exit_code == 0, done.output
    backbone = EmbeddedBackbone(weights=out / "embedded.safetensors")
    assert backbone.layout(64).levels == ((8, 8, 20), (4, 4, 20))
    card = json.loads((out / "card.json").read_text())
    assert card["source"] == "drawn, CC0"
    assert str(tmp_path) not in json.dumps(card)
    assert backbone.card == {key: card[key] for key in card if key != "sha256"}
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    raw = EmbeddedBackbone(weights=out / "embedded.safetensors", whiten=False)
    parts = network("mobilenetv2_050", features_only=True, out_indices=(3,))
    parts.load_state_dict(network("mobilenetv2_050").state_dict(), strict=False)
    mean, std = (
        torch.tensor(parts.pretrained_cfg[key])[:, None, None]
        for key in ("mean", "std")
    )
    with torch.no_grad():
        (expected,) = parts((images - mean) / std)
    found = raw(images)[1].permute(0, 3, 1, 2)[:, -expected.shape[1] :]
    averaged = torch.nn.functional.avg_pool2d(
        expected, 3, 1, 1, count_include_pad=False
    )
    # weights are kept as float16
    assert (found - averaged).norm() < 0.03 * averaged.norm()
    again = tmp_path / "again"
    call("mobilenetv2_050", "--weights", weights, "--out", again, *options)
    other = EmbeddedBackbone(weights=again / "embedded.safetensors")
    assert other.fingerprint() == backbone.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mobilenet2"], "timm knows no 'mobilenet2' (no such model)"),
        (["mobilenetv2_050.nope"], "timm knows no 'mobilenetv2_050.nope' (Invalid"),
        (["resnet10t"], "resnet10t is not of inverted residual blocks"),
        (["tf_efficientnet_lite0"], "own.safetensors does not hold the tensors"),
        (["mobilenetv2_050", "--window", "2"], "--window 2: expected an odd number"),
        (["mobilenetv2_050", "--stack", "3"], "--stack: strides must be rising"),
        (["mobilenetv2_050", "--strides", "x"], "--strides 'x': expected whole"),
        (["mobilenetv2_050", "--level-channels", "900"], "is more than the 80"),
    ],
)
def test_a_wrong_option_gets_one_line(call, weights, tmp_path, arguments, message):
    out = tmp_path / "out"
    done = call(*arguments, "--weights", weights, "--out", out)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert not out.exists()


def test_a_folder_that_cannot_be_written_gets_one_line(call, weights, tmp_path):
    (tmp_path / "file").write_text("")
    options = ("--weights", weights, "--level-channels", 8)
    done = call("mobilenetv2_050", *options, "--out", tmp_path / "file")
    assert done.exit_code == 2
    assert "cannot write weights there" in " ".join(done.output.split())
