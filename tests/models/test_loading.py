"""A state loads whole or not at all, wherever the model lies."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from avalanche_ad.models import FeatureGMM, FlowGMM, PackNetFlowGMM
from avalanche_ad.models.gaussians import FeatureStatistics
from avalanche_ad.models.loading import LoadsWhole

MASK = (8, 8)
FLOW = {
    "couplings": 2,
    "condition_channels": 4,
    "centers_per_category": 3,
    "smoothing_sigma": 1.0,
}
KINDS = {
    "flow": (FlowGMM, FLOW | {"position_calibration": False}),
    "aligned": (FlowGMM, FLOW | {"position_calibration": True}),
    "packnet": (PackNetFlowGMM, FLOW | {"position_calibration": True}),
    "feature": (FeatureGMM, {"components": 2, "smoothing_sigma": 1.0}),
}

MADE = {}


def fresh(kind, layout, room=0, **options):
    made, own = KINDS[kind]
    return made(layout, room, **(own | options))


def shaken(model, seed=7):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def trained(kind, layout, features):
    """A model that has learned three categories, of five there is room for."""

    def make(seed=7, known=(0, 1, 2), room=5):
        key = kind, seed, known, room
        if key not in MADE:
            MADE[key] = made(*key[1:])
        return copy.deepcopy(MADE[key])

    def made(seed, known, room):
        model = fresh(kind, layout)
        parts = [(features(6, seed=seed + c) + c, c) for c in known]
        if kind == "feature":
            for x, c in parts:
                model.fit_category(c, x)
        else:
            for c in known:
                model.add_categories([c])
                shaken(model, seed + c)
                if kind == "packnet" and c != known[-1]:
                    model.prune(0.5)
                    model.freeze_pruned()
        if kind == "packnet":
            shaken(model, seed)  # as momentum does to what is frozen
        if kind == "aligned":
            model.alignment.statistics = FeatureStatistics(
                layout, 2, "low_rank", rank=2, max_iter=3
            )
            for x, c in parts:
                model.alignment.statistics.fit_category(c, x)
            model.align_to_statistics(200)
        model.eval()
        model.calibrate([(x, torch.full((6,), c)) for x, c in parts])
        model.resize(room)
        return model

    return make


def maps(model, x):
    return model.score(model(x), MASK).maps


def frozen(model):
    """Return all that a load could change."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [id(parameter) for parameter in model.parameters()],
        [name for name, _ in model.named_modules()],
        model.num_categories,
    )


def same(one, other):
    return (
        list(one[0]) == list(other[0])
        and all(
            torch.equal(value.nan_to_num(), other[0][name].nan_to_num())
            for name, value in one[0].items()
        )
        and one[1:] == other[1:]
    )


@pytest.mark.parametrize("room", [0, 3, 5, 9])
def test_a_model_of_any_size_takes_a_state(trained, kind, layout, features, room):
    model = trained()
    other = fresh(kind, layout, room).eval()
    other.load_state_dict(model.state_dict())
    x = features(4)
    assert other.num_categories == 5
    assert torch.equal(other(x), model(x))
    assert torch.equal(maps(other, x), maps(model, x))
    assert same(frozen(other)[:1], frozen(model)[:1])


def test_a_model_that_knew_others_takes_a_state(trained, features):
    model, other = trained(), trained(seed=40, known=(0, 1, 3), room=7)
    x = features(4)
    assert not torch.equal(other(x)[:, :5], model(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(maps(other, x), maps(model, x))
    assert torch.equal(other.known_categories, model.known_categories)


@pytest.mark.parametrize("around", ["list", "dict", "deep", "parallel"])
def test_a_model_inside_another_module_loads(trained, kind, layout, features, around):
    class Parallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    def wrapped(model):
        if around == "list":
            return nn.Sequential(nn.Linear(2, 2), model)
        if around == "dict":
            return nn.ModuleDict({"a": model, "b": nn.Linear(1, 1)})
        if around == "deep":
            return nn.ModuleDict({"a": nn.ModuleList([nn.ModuleList([model])])})
        return Parallel(model)

    model, other = trained(), fresh(kind, layout, 2).eval()
    wrapped(other).load_state_dict(wrapped(model).state_dict())
    x = features(4)
    assert torch.equal(maps(other, x), maps(model, x))


def test_two_models_in_one_module_keep_apart(trained, features):
    one, two = trained(), trained(seed=40, known=(0, 1), room=2)
    pair = nn.ModuleDict({"one": one, "two": two})
    swapped = nn.ModuleDict({"one": copy.deepcopy(two), "two": copy.deepcopy(one)})
    swapped.load_state_dict(pair.state_dict())
    x = features(4)
    assert torch.equal(maps(swapped["one"], x), maps(one, x))
    assert torch.equal(maps(swapped["two"], x), maps(two, x))


def without(state, end):
    name = next(name for name in state if name.endswith(end))
    return {key: value for key, value in state.items() if key != name}


def cut(state, end):
    name = next(name for name in state if name.endswith(end))
    return state | {name: state[name][..., :-1]}


def short(state, end):
    name = next(name for name in state if name.endswith(end))
    return state | {name: state[name][:-1]}


def of_nan(state, end):
    name = next(name for name in state if name.endswith(end))
    return state | {name: torch.full(state[name].shape, torch.nan)}


WRONG = {
    "a key missing": lambda s: without(s, "known"),
    "a level's key missing": lambda s: without(s, "mixtures.1.known"),
    "constants missing": lambda s: without(s, "level_maximum"),
    "a key too many": lambda s: s | {"wizard": torch.zeros(2)},
    "a deep key too many": lambda s: s | {"mixtures.0.wizard": torch.zeros(2)},
    "a level too many": lambda s: s | {"mixtures.2.known": s["mixtures.0.known"]},
    "fewer channels": lambda s: cut(
        s, "means" if "mixtures.0.means" in s else "centers"
    ),
    "fewer levels": lambda s: cut(s, "level_maximum"),
    "levels of different rows": lambda s: short(s, "mixtures.1.known"),
    "flags that are no numbers": lambda s: of_nan(s, "mixtures.0.known"),
    "no tensor": lambda s: s | {"level_maximum": [1.0]},
}
OF_FLOWS = {
    "an entropy there is not": lambda s: s | {"entropy_code": torch.tensor(9)},
    "an entropy of NaN": lambda s: s | {"entropy_code": torch.tensor(torch.nan)},
    "a table not square": lambda s: short(s, "known_when_learned"),
    "a smaller table": lambda s: s | {"known_when_learned": torch.ones(2, 2) > 0},
    "a flow's weight": lambda s: short(s, "subnet.0.weight"),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(k, w) for k in KINDS for w in WRONG]
    + [(k, w) for k in KINDS if k != "feature" for w in OF_FLOWS],
    indirect=["kind"],
)
def test_a_refused_load_changes_nothing(trained, features, wrong, nested):
    state = (WRONG | OF_FLOWS)[wrong](dict(trained().state_dict()))
    other = trained(seed=40, known=(0, 1), room=2)
    before, x = frozen(other), features(4)
    scores = maps(other, x)
    loading = nn.ModuleDict({"in": other}) if nested else other
    if nested:
        state = {f"in.{name}": value for name, value in state.items()}
    with pytest.raises(RuntimeError, match="Error\\(s\\) in loading"):
        loading.load_state_dict(state)
    assert same(frozen(other), before)
    assert torch.equal(maps(other, x), scores)


def test_a_state_of_another_kind_is_refused(trained, kind, layout, features):
    model = trained()
    before, x = frozen(model), features(2)
    scores = maps(model, x)
    foreign = fresh("feature" if kind == "packnet" else "packnet", layout, 2)
    with pytest.raises(RuntimeError, match="key\\(s\\) in state_dict"):
        model.load_state_dict(foreign.state_dict())
    if kind in ("aligned", "packnet"):  # without position calibration
        other = fresh(kind, layout, 2, position_calibration=False)
        with pytest.raises(RuntimeError, match="Missing.*positions.likelihood"):
            model.load_state_dict(other.state_dict())
    assert same(frozen(model), before)
    assert torch.equal(maps(model, x), scores)


def test_one_that_is_not_strict_takes_what_fits(trained, kind, layout, features):
    model, other = trained(), fresh(kind, layout).eval()
    state = model.state_dict() | {"wizard": torch.zeros(1)}
    nested = nn.ModuleDict({"a": other})
    found = nested.load_state_dict({f"a.{k}": v for k, v in state.items()}, False)
    assert found.unexpected_keys == ["a.wizard"]
    assert not found.missing_keys
    x = features(3)
    assert torch.equal(maps(other, x), maps(model, x))
    before = frozen(other)
    found = other.load_state_dict({}, strict=False)
    assert set(found.missing_keys) == set(before[0])
    assert same(frozen(other), before)
    constants = {"level_maximum": torch.full_like(model.level_maximum, 3.0)}
    found = other.load_state_dict(constants, strict=False)
    assert set(found.missing_keys) == set(before[0]) - {"level_maximum"}
    assert torch.equal(other.level_maximum, constants["level_maximum"])
    # another shape is refused all the same, as torch does
    before = frozen(other)
    with pytest.raises(RuntimeError, match="size mismatch for level_maximum"):
        other.load_state_dict({"level_maximum": torch.zeros(5, 9)}, strict=False)
    assert same(frozen(other), before)


def test_numbers_are_converted_as_torch_does(trained, kind, layout, features):
    model = trained()
    double = fresh(kind, layout).double().eval()
    double.load_state_dict(model.state_dict())
    for name, value in double.state_dict().items():
        kept = not value.is_floating_point() or name.startswith("statistics.")
        own = model.state_dict()[name].dtype if kept else torch.float64
        assert value.dtype == own, name
        assert torch.equal(
            value.to(model.state_dict()[name]).nan_to_num(),
            model.state_dict()[name].nan_to_num(),
        )
    back = fresh(kind, layout).eval()
    back.load_state_dict(double.state_dict())
    x = features(3)
    assert torch.equal(maps(back, x), maps(model, x))
    assert bool(double(x.double()).isfinite().all())


def test_assigning_loads_alike(trained, kind, layout, features):
    model, other = trained(), fresh(kind, layout).eval()
    other.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    x = features(3)
    assert torch.equal(maps(other, x), maps(model, x))


def ways():
    def saved(model):
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    return {
        "pickle": lambda model: pickle.loads(pickle.dumps(model)),
        "torch.save": saved,
        "deepcopy": copy.deepcopy,
    }


class Halves(nn.Module):
    """A frozen backbone of the layout's shapes."""

    def forward(self, images):
        both = torch.cat([images, images.square()], dim=1)
        pool = nn.functional.adaptive_avg_pool2d
        return [3 * pool(both, side).permute(0, 2, 3, 1) for side in (4, 2)]


@pytest.mark.parametrize("way", ways())
def test_a_whole_model_is_copied(trained, kind, layout, features, way):
    model, copied = trained(), ways()[way]
    model.attach_backbone(Halves(), 8)
    twin = copied(model)
    assert type(twin) is type(model)
    assert twin.layout == layout
    x = features(4)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(maps(twin, x), maps(model, x))
    assert torch.equal(twin.predict(images).maps, model.predict(images).maps)
    # a copy shares the backbone, a file has its own
    assert (twin._shared.backbone is model._shared.backbone) == (way == "deepcopy")
    untrained = copied(fresh(kind, layout, 2))
    assert untrained.num_categories == 2
    assert torch.equal(untrained(x), fresh(kind, layout, 2)(x))


# Extra states -------------------------------------------------------------------------


class Set(LoadsWhole):
    """A module with plain settings, which its state holds too."""

    def __init__(self, **settings):
        super().__init__()
        self.settings = settings
        self.register_buffer("rows", torch.zeros(2))

    def get_extra_state(self):
        return self.settings

    def set_extra_state(self, state):
        self.settings.clear()
        self.settings.update(state)
        if "wizard" in state:
            raise KeyError("wizard")
        if "crash" in state:
            raise OSError("crash")


class Pair(LoadsWhole):
    def __init__(self, **settings):
        super().__init__()
        self.inner = Set(**settings)
        self.outer = nn.ModuleList([Set(**settings)])


def held(pair):
    return [
        (part.settings, part.rows.tolist())
        for part in pair.modules()
        if isinstance(part, Set)
    ]


@pytest.mark.parametrize("made", [Set, Pair])
@pytest.mark.parametrize("nested", [False, True])
def test_an_extra_state_is_loaded(made, nested):
    saved, other = made(a=1), made(b=2)
    if nested:
        nn.ModuleList([other]).load_state_dict(nn.ModuleList([saved]).state_dict())
    else:
        other.load_state_dict(saved.state_dict())
    assert held(other) == held(saved)


@pytest.mark.parametrize("key", ["inner._extra_state", "outer.0._extra_state"])
def test_an_extra_state_on_one_side_is_missing_or_unexpected(key):
    saved, other = Pair(a=1), Pair(b=2)
    saved.inner.rows += 1
    before = copy.deepcopy(held(other))
    state = saved.state_dict()
    del state[key]
    with pytest.raises(RuntimeError, match=f'Missing key.*"{key}"'):
        other.load_state_dict(state)
    assert held(other) == before
    found = other.load_state_dict(state, strict=False)
    assert found.missing_keys == [key]
    assert found.unexpected_keys == []
    assert sorted(str(settings) for settings, _ in held(other)) == [
        "{'a': 1}",
        "{'b': 2}",
    ]
    state = saved.state_dict() | {"_extra_state": 3}
    with pytest.raises(RuntimeError, match='Unexpected key.*"_extra_state"'):
        Pair().load_state_dict(state)
    found = other.load_state_dict(state, strict=False)
    assert found.unexpected_keys == ["_extra_state"]
    assert held(other) == held(saved)


@pytest.mark.parametrize(
    ("word", "error"), [("wizard", RuntimeError), ("crash", OSError)]
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_refused_extra_state_changes_nothing(word, error, nested):
    saved, other = Pair(a=1), Pair(b=2)
    saved.inner.rows += 1
    before = copy.deepcopy(held(other))
    state = saved.state_dict()
    state["outer.0._extra_state"] = {word: 1}
    if nested:
        other = nn.ModuleDict({"in": other})
        state = {f"in.{name}": value for name, value in state.items()}
    with pytest.raises(error, match=word):
        other.load_state_dict(state)
    assert held(other) == before


def test_a_refused_tensor_leaves_the_extra_states():
    saved, other = Pair(a=1), Pair(b=2)
    before = copy.deepcopy(held(other))
    state = saved.state_dict() | {"inner.rows": torch.zeros(3)}
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(state)
    assert held(other) == before
