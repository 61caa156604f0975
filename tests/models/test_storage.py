import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from avalanche_ad.errors import ResultsError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FeatureGMM, FlowGMM
from avalanche_ad.models.storage import load_model, save_model

FLOW_OPTIONS = {
    "couplings": 2,
    "condition_channels": 4,
    "centers_per_category": 3,
    "smoothing_sigma": 1.0,
    "seed": 3,
}
OPTIONS = {
    "flow_gmm": FLOW_OPTIONS,
    "feature_gmm": {"components": 2, "smoothing_sigma": 1.0},
}


@pytest.fixture
def saved(request, tmp_path, features):
    """Save a calibrated model: kind → (model, folder)."""

    def save(kind="flow_gmm"):
        options = OPTIONS[kind]
        model = request.getfixturevalue(kind)(known=(0, 2), **options)
        model.resize(4)
        model.calibrate([(features(4), torch.tensor([0, 2, 2, 0]))])
        save_model(model, tmp_path, kind, options, {"categories": ["a", "b"]})
        return model.eval(), tmp_path

    return save


@pytest.mark.parametrize(
    ("kind", "type_"), [("flow_gmm", FlowGMM), ("feature_gmm", FeatureGMM)]
)
def test_round_trip(saved, features, kind, type_):
    model, folder = saved(kind)
    loaded, description = load_model(folder)
    assert type(loaded) is type_
    assert not loaded.training
    assert description["categories"] == ["a", "b"]
    assert loaded.num_categories == 4
    assert loaded.known_categories.tolist() == [0, 2]
    x = features(3)
    output, expected = loaded(x), model(x)
    assert torch.equal(output, expected)
    assert torch.equal(
        loaded.score(output, (8, 8)).maps, model.score(expected, (8, 8)).maps
    )


def test_dynamic_form_is_loaded_as_the_plain_one(tmp_path, layout, features):
    from avalanche_ad.training import DynamicFlowGMM

    model = DynamicFlowGMM(layout, **FLOW_OPTIONS)
    model.add_categories([0, 1])
    save_model(model, tmp_path, "flow_gmm", FLOW_OPTIONS, {})
    loaded, _ = load_model(tmp_path)
    assert type(loaded) is FlowGMM
    assert torch.equal(loaded(features(2)), model(features(2)))


def rewrite(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_tensor(folder, name):
    state = load_file(folder / "model.safetensors")
    del state[name]
    save_file(state, folder / "model.safetensors")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "no description": (lambda f: (f / "model.json").unlink(), "model.json is missing"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "safetensors is miss"),
    "cut description": (lambda f: cut(f / "model.json"), "damaged"),
    "cut weights": (lambda f: cut(f / "model.safetensors"), "damaged"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "no mapping": (lambda f: (f / "model.json").write_text("[]"), "damaged"),
    "not text": (lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "damaged"),
    "no schema": (lambda f: (f / "model.json").write_text("{}"), "damaged"),
    "schema": (lambda f: rewrite(f, schema=2), "expected schema 1, found 2"),
    "type": (lambda f: rewrite(f, type="wizard"), "unknown model 'wizard'"),
    "option": (lambda f: rewrite(f, options={"magic": 1}), "damaged.*magic"),
    "levels": (lambda f: rewrite(f, levels=[[4, 4]]), "damaged"),
    "other levels": (lambda f: rewrite(f, levels=[[4, 4, 6]]), "damaged"),
    "categories": (lambda f: rewrite(f, num_categories=9), "damaged.*size mismatch"),
    "no maximum": (lambda f: drop_tensor(f, "level_maximum"), "damaged"),
    "no centres": (lambda f: drop_tensor(f, "mixtures.0.centers"), "damaged.*Missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_told_in_one_line(saved, damage):
    _, folder = saved()
    apply, message = DAMAGES[damage]
    apply(folder)
    with pytest.raises(ResultsError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(ResultsError, match="holds no trained model"):
        load_model(tmp_path / "nowhere")


def test_unknown_numbers_are_never_written(flow_gmm, tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_model(flow_gmm(), tmp_path, "flow_gmm", {}, {"threshold": float("nan")})


class Bomb:
    def __reduce__(self):
        return print, ("executed",)


def test_nothing_is_unpickled(saved, monkeypatch, capsys):
    _, folder = saved()

    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was opened")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    load_model(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ResultsError, match="damaged"):
        load_model(folder)
    assert capsys.readouterr().out == ""


def test_the_layout_comes_back(saved):
    model, folder = saved()
    loaded, _ = load_model(folder)
    assert isinstance(loaded.layout, FeatureLayout)
    assert loaded.layout == model.layout
