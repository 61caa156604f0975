"""Every task of a PackNet flow-GMM is a plain flow-GMM that never moves again."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avalanche_ad.errors import TrainingError
from avalanche_ad.models import FlowGMM, PackNetFlowGMM
from avalanche_ad.models.anomaly_model import MASKED
from avalanche_ad.models.hgad.latents import Latents
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.storage import load_model, save_model
from avalanche_ad.models.task_parameters import FREE, pruned

MASK = (8, 8)
OPTIONS = {
    "couplings": 2,
    "condition_channels": 4,
    "centers_per_category": 3,
    "smoothing_sigma": 1.0,
    "position_calibration": False,
}
TASKS = [[1, 4], [0], [2, 3, 5]]


def shake(model, seed, size=0.1):
    """Move every number of every parameter, as an optimizer with weight decay may."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def learn(model, task, features, proportion=0.5):
    """Learn a task by chance, with its pruning and its calibration."""
    model.add_categories(TASKS[task])
    shake(model, 10 * task)
    model.prune(proportion)
    shake(model, 10 * task + 1)
    model.freeze_pruned()
    model.calibrate(
        [(features(6, seed=c) + c, torch.full((6,), c)) for c in TASKS[task]]
    )
    model.eval()


@pytest.fixture
def packnet(layout, features):
    """Build a model that has learned the first ``tasks`` of TASKS."""

    def make(tasks=3, **options):
        model = PackNetFlowGMM(layout, **(OPTIONS | options))
        shake(model, 99)
        for task in range(tasks):
            learn(model, task, features)
        return model

    return make


def plain(model, task):
    """Read one task off the saved state, as a plain flow-GMM."""
    state = model.state_dict()
    owned = model.category_task == task
    kept = {}
    for name, value in state.items():
        if name.endswith(".weight") and name.startswith("flows."):
            owner = state[name.removesuffix("weight") + "owner"]
            kept[name] = value * (owner <= task)
        elif name.endswith(".known"):
            kept[name] = owned.clone()
        elif name + "_of_tasks" in state:
            kept[name] = state[name + "_of_tasks"][task]
        elif not name.endswith(("owner", "_of_tasks", "category_task", "frozen_tasks")):
            kept[name] = copy.deepcopy(value)
    made = FlowGMM(model.layout, **OPTIONS)
    made.load_state_dict(kept)
    return made.eval()


def task_of(category):
    return next(t for t, categories in enumerate(TASKS) if category in categories)


@given(
    owners=st.lists(st.sampled_from([0, 1, 2, FREE]), min_size=1, max_size=30),
    proportion=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_task_gives_up_its_smallest_weights_alone(owners, proportion, seed):
    owner = torch.tensor(owners, dtype=torch.uint8).view(1, -1)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(owner.shape, generator=generator)
    new = pruned(owner, weight, 1, proportion)
    own, given_up = owner == 1, (owner == 1) & (new == FREE)
    assert torch.equal(new[~own], owner[~own])
    assert set(new[own].tolist()) <= {1, FREE}
    assert int(given_up.sum()) == int(proportion * int(own.sum()))
    kept = own & ~given_up
    if given_up.any() and kept.any():
        assert float(weight[given_up].abs().max()) <= float(weight[kept].abs().min())


def test_one_task_is_the_plain_model(layout, features, flow_gmm):
    expected = flow_gmm(known=(0, 2))
    model = PackNetFlowGMM(layout, **OPTIONS)
    model.add_categories([0, 2])
    state = {**model.state_dict(), **expected.state_dict()}
    model.load_state_dict(state)
    x, category = features(4), torch.tensor([0, 2, 2, 0])
    for training in (True, False):
        ours, theirs = (m.train(training)(x) for m in (model, expected))
        assert torch.equal(ours, theirs)
    for made in (model, expected):
        made.calibrate([(x, category)])
    for given_category in (None, category):
        ours, theirs = (
            m.score(m(x), MASK, category=given_category) for m in (model, expected)
        )
        torch.testing.assert_close(ours.maps, theirs.maps)
        assert torch.equal(ours.category, theirs.category)


def test_a_task_owns_its_share_of_every_layer(packnet):
    model = packnet(tasks=2)
    layers = [m for m in model.flows.modules() if isinstance(m, nn.Linear)]
    assert layers
    for layer in layers:
        count = layer.weight.numel()
        first = count - count // 2
        rest = count - first
        owners = [int((layer.owner == task).sum()) for task in range(3)]
        assert owners == [first, rest - rest // 2, rest // 2]
    assert model.category_task.tolist() == [1, 0, -1, -1, 0]
    assert model.task_count == 2


def test_every_task_is_a_plain_model(packnet, features):
    model = packnet()
    x = features(5)
    output = model(x)
    assert output.shape == (5, 6)
    for category in range(6):
        task = task_of(category)
        alone = plain(model, task)
        own = alone(x)
        prior = math.log(len(TASKS[task]) / 6)
        torch.testing.assert_close(
            output[:, category], own[:, category] + prior, rtol=1e-5, atol=1e-5
        )
        chosen = torch.full((5,), category)
        ours = model.log_likelihood_levels(latents_of(output), chosen)
        theirs = alone.log_likelihood_levels(latents_of(own), chosen)
        for level, expected in zip(ours, theirs, strict=True):
            torch.testing.assert_close(level, expected)
        alone.level_maximum = model.level_maximum
        torch.testing.assert_close(
            model.score(output, MASK, chosen).maps,
            alone.score(own, MASK, chosen, kind="likelihood").maps,
        )


def test_a_task_of_one_category_leaves_the_likelihood_for_all(packnet, features):
    model, x = packnet(tasks=1), features(5)
    chosen = torch.full((5,), TASKS[0][0])

    def maps(kind=None):
        return model.score(model(x), MASK, chosen, kind=kind).maps

    assert torch.equal(maps(), maps("product"))
    assert not torch.equal(maps(), maps("likelihood"))
    learn(model, 1, features)
    assert len(TASKS[1]) == 1
    assert torch.equal(maps(), maps("likelihood"))


def test_images_of_several_tasks_are_scored_each_by_its_own(packnet, features):
    model = packnet()
    x, category = features(6), torch.tensor([3, 0, 4, 5, 1, 0])
    output = model(x)
    latents = latents_of(output)
    together = model.score(output, MASK, category)
    assert torch.equal(together.category, category)
    levels = model.log_likelihood_levels(latents, category)
    for row in range(6):
        one = x[row : row + 1]
        alone = model.score(model(one), MASK, category[row : row + 1])
        torch.testing.assert_close(together.maps[row], alone.maps[0])
        torch.testing.assert_close(together.image[row], alone.image[0])
        own = plain(model, task_of(int(category[row])))
        expected = own.log_likelihood_levels(
            latents_of(own(one)), category[row : row + 1]
        )
        for level, value in zip(levels, expected, strict=True):
            torch.testing.assert_close(level[row], value[0])


def test_aligned_mixtures_score_each_image_by_its_own_likelihood(packnet, features):
    model = packnet()
    for mixture in model.alignment.start(1, model.num_categories):
        for c in range(6):
            width = mixture.means.shape[2]
            eye = torch.eye(width)[None]
            mixture.put(c, torch.ones(1), torch.full((1, width), float(c)), eye)
    x, category = features(6), torch.tensor([3, 0, 4, 5, 1, 0])
    together = model.score(model(x), MASK, category, "likelihood")
    for row in range(6):
        one = model(x[row : row + 1])
        alone = model.score(one, MASK, category[row : row + 1], "likelihood")
        torch.testing.assert_close(together.maps[row], alone.maps[0])


def test_the_entropy_is_that_of_the_inferred_task(packnet, features):
    model = packnet()
    x = features(8) * torch.linspace(0.3, 3, 8)[:, None]
    output = model(x)
    inferred = model.infer_category(output)
    assert torch.equal(inferred, output.argmax(1))
    levels = model.negative_entropy_levels(latents_of(output), inferred)
    for row, category in enumerate(inferred.tolist()):
        own = plain(model, task_of(category))
        latents, chosen = latents_of(own(x[row : row + 1])), inferred[row : row + 1]
        expected = own.negative_entropy_levels(latents, chosen)
        for level, value in zip(levels, expected, strict=True):
            torch.testing.assert_close(level[row], value[0])
    agnostic, told = (
        model.score(output, MASK),
        model.score(output, MASK, category=inferred),
    )
    assert torch.equal(agnostic.maps, told.maps)


def test_nothing_of_an_old_task_moves(packnet, features):
    model = packnet(tasks=0)
    x = features(5)

    def look(at, category):
        output = at.eval()(x)
        chosen = torch.full((5,), category)
        levels = at.log_likelihood_levels(latents_of(output), chosen)
        # of one kind: a task of one category turns the product into the likelihood
        return [*levels, at.score(output, MASK, chosen, kind="likelihood").maps]

    seen = {}

    def unchanged(at):
        for category, before in seen.items():
            now = look(at, category)
            assert all(map(torch.equal, now, before)), category

    for task in range(3):
        learn(model, task, features)
        unchanged(model)
        seen |= {category: look(model, category) for category in TASKS[task]}
        # however the next one is learned, in a copy
        twin = copy.deepcopy(model)
        twin.add_categories([6])
        unchanged(twin)
        shake(twin, 77)
        pairs = zip(twin.flows.parameters(), model.flows.parameters(), strict=True)
        assert not any(torch.equal(new, old) for new, old in pairs)
        unchanged(twin)
        twin.prune(0.5)
        shake(twin, 78)
        unchanged(twin)
        twin.resize(9)
        shake(twin, 79)
        unchanged(twin)
        twin.freeze_pruned()
        unchanged(twin)
    assert set(seen) == {0, 1, 2, 3, 4, 5}


def test_freezing_undoes_what_the_optimizer_did_to_old_tasks(packnet):
    model = packnet(tasks=1)
    before = {name: value.clone() for name, value in model.named_parameters()}
    model.add_categories([0])
    shake(model, 5)
    model.freeze_pruned()
    for name, value in model.named_parameters():
        old = before[name]
        if name.endswith("weight"):
            owner = model.get_buffer(name.removesuffix("weight") + "owner")
            assert torch.equal(value[owner == 0], old[owner == 0])
            assert not torch.equal(value[owner == 1], old[owner == 1])
        elif name.startswith("flows"):
            first, second = model.get_buffer(name + "_of_tasks")
            assert torch.equal(first, old)
            assert torch.equal(second, value)
            assert not torch.equal(second, first)
        else:
            assert torch.equal(value[[1, 4]], old[[1, 4]])
            assert not torch.equal(value[0], old[0])


def test_training_sees_its_own_task_alone(packnet, features):
    model = packnet(tasks=1)
    model.add_categories(TASKS[2])
    model.prune(0.5)
    model.train()
    output = model(features(3))
    latents = latents_of(output)
    assert isinstance(latents, Latents)
    assert latents.known.tolist() == TASKS[2]
    assert bool((output[:, [0, 1, 4]] == MASKED).all())
    assert bool((output[:, TASKS[2]] > MASKED / 2).all())
    loss = output[:, TASKS[2]].square().sum()
    for level in latents.levels:
        loss = loss + level.centers.square().sum() + level.inner_logits.square().sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if name.endswith("weight"):
            owner = model.get_buffer(name.removesuffix("weight") + "owner")
            assert set(owner.unique().tolist()) == {0, 1, FREE}
            assert float(gradient[owner != 1].abs().max()) == 0
            assert float(gradient[owner == 1].abs().max()) > 0
        elif name.startswith("flows"):
            assert float(gradient.abs().max()) > 0
        else:
            assert float(gradient[[0, 1, 4]].abs().max()) == 0
    for parameter in model.parameters():
        assert parameter.is_leaf


def test_the_first_task_trains_everything(packnet, features):
    model = packnet(tasks=0)
    model.add_categories([0, 1])
    latents = latents_of(model.train()(features(3)))
    sum(
        level.z.square().sum() + level.log_det.sum() for level in latents.levels
    ).backward()
    for name, parameter in model.flows.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("inner", [True, False])
def test_samples_come_from_the_task_of_their_category(packnet, layout, inner):
    model = packnet()
    categories, positions = torch.tensor([5, 1, 0, 1]), torch.tensor([0, 2, 1, 3])
    for index in range(2):
        draw = torch.Generator().manual_seed(3)
        z, x = model.sample_level(index, categories, positions, draw, inner)
        draw.manual_seed(3)
        for task, rows in enumerate(([1, 3], [2], [0])):
            expected = plain(model, task).sample_level(
                index, categories[rows], positions[rows], draw, inner
            )
            torch.testing.assert_close(z[rows], expected[0])
            torch.testing.assert_close(x[rows], expected[1])
    assert model.sample(categories).shape == (4, layout.size)
    assert model.generate(3).shape == (3, layout.size)


def test_saved_and_loaded(packnet, features, tmp_path):
    model = packnet()
    save_model(model, tmp_path, "packnet_flow_gmm", OPTIONS, {})
    loaded, _ = load_model(tmp_path)
    assert type(loaded) is PackNetFlowGMM
    assert loaded.task_count == 3
    x = features(4)
    assert torch.equal(loaded(x), model(x))
    assert torch.equal(
        loaded.score(loaded(x), MASK).maps, model.score(model(x), MASK).maps
    )
    again = loaded.train()
    again.add_categories([6])
    assert again.category_task.tolist() == [1, 0, 2, 2, 0, 2, 3]
    assert torch.equal(
        again.eval()(x)[:, :6] > MASKED, torch.ones(4, 6, dtype=torch.bool)
    )


def test_a_loaded_state_replaces_what_is_guarded(packnet, features):
    model, other = packnet(tasks=1), packnet(tasks=1)
    shake(other, 55)
    for made in (model, other):
        made.add_categories([0])
    model.load_state_dict(other.state_dict())
    shake(model, 56)
    model.freeze_pruned()
    x, category = features(3), torch.tensor([1, 4, 4])
    levels = [
        m.log_likelihood_levels(latents_of(m.eval()(x)), category)
        for m in (model, other)
    ]
    for ours, theirs in zip(*levels, strict=True):
        assert torch.equal(ours, theirs)


def test_what_cannot_be_is_refused(packnet, layout, features):
    model = packnet(tasks=1)
    with pytest.raises(TrainingError, match=r"categories \[4\] belong to tasks"):
        model.add_categories([0, 4])
    assert model.known_categories.tolist() == [1, 4]
    for proportion in (-0.1, 1.5):
        with pytest.raises(TrainingError, match="from 0 to 1"):
            model.prune(proportion)
    output = model(features(2))
    with pytest.raises(TrainingError, match=r"categories \[0\] have not been learned"):
        model.score(output, MASK, category=torch.tensor([0, 1]))
    with pytest.raises(TrainingError, match="carries no latents"):
        model.score(output[:, :3], MASK)
    model.add_categories([0])
    output = model.train()(features(2))
    with pytest.raises(TrainingError, match=r"categories \[4\] have not been learned"):
        model.score(output, MASK, category=torch.tensor([0, 4]))
    with pytest.raises(TrainingError, match="cannot go with PackNet"):
        PackNetFlowGMM(layout, 2, categories_at_start=True)


@pytest.mark.parametrize("room", [0, 3])
def test_a_model_without_categories_is_asked_in_vain(layout, features, room):
    model = PackNetFlowGMM(layout, room, **OPTIONS).eval()
    output = model(features(2))
    assert output.shape == (2, room)
    with pytest.raises(TrainingError, match="knows no category yet"):
        model.score(output, MASK)


def test_nothing_with_a_graph_stays_on_the_model(packnet, features):
    model = packnet(tasks=1)
    model.add_categories([0])
    x = features(3)
    for training in (True, False):
        output = model.train(training)(x)
        output.sum().backward()
        twin = copy.deepcopy(model)
        assert torch.equal(twin(x), output)
        kept = [*model.buffers(), *vars(model).values()]
        assert [t for t in kept if isinstance(t, torch.Tensor) and t.grad_fn] == []


def test_the_names_of_a_saved_state_stay(packnet):
    """Finished runs of earlier versions are read by them."""
    linear = {"weight", "bias", "bias_of_tasks", "owner"}
    block = {"w_perm", "w_perm_inv"} | {
        f"global_{name}{suffix}"
        for name in ("scale", "offset")
        for suffix in ("", "_of_tasks")
    }
    block |= {f"subnet.{index}.{name}" for index in (0, 2) for name in linear}
    mixture = {"centers", "class_logits", "inner_logits", "known"}
    expected = {"category_task", "frozen_tasks"}
    for level in range(2):
        expected |= {f"mixtures.{level}.{name}" for name in mixture}
        expected |= {
            f"flows.{level}.blocks.{i}.{name}" for i in (0, 1) for name in block
        }
    own = ("flows.", "mixtures.", "category_task", "frozen_tasks")
    names = {name for name in packnet(tasks=2).state_dict() if name.startswith(own)}
    assert names == expected


def test_a_state_that_fits_in_part_keeps_what_is_guarded(packnet, features):
    model, x, category = packnet(tasks=1), features(3), torch.tensor([1, 4, 4])
    model.add_categories([0])
    model.eval()
    before = model.log_likelihood_levels(latents_of(model(x)), category)
    shake(model, 5)
    model.load_state_dict({"entropy_code": torch.tensor(0)}, strict=False)
    shake(model, 6)
    after = model.log_likelihood_levels(latents_of(model(x)), category)
    assert all(map(torch.equal, after, before))
