import copy

import pytest
import torch

from avalanche_ad.errors import RecipeError
from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import ContextFlowGMM, PaDiM
from avalanche_ad.models.context_flow.alignment import partly_whitening
from avalanche_ad.models.context_flow.flow import ContextFlow
from avalanche_ad.models.context_flow.low_rank import adapted
from avalanche_ad.models.context_flow.networks import surroundings, with_surroundings
from avalanche_ad.models.context_flow.objectives import (
    contrast_loss,
    log_density,
    noised,
    noised_regions,
    tail_aware,
)
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.storage import load_model, save_model
from avalanche_ad.recipes import load_experiment

LAYOUT = FeatureLayout(((8, 9, 6), (4, 4, 5)))
SMALL = {
    "couplings": 2,
    "hidden": 8,
    "head": 8,
    "critic": 8,
    "condition_channels": 4,
    "crop": 5,
}


def features(count, category=0, seed=0):
    generator = torch.Generator().manual_seed(100 * category + seed)
    x = torch.randn(count, LAYOUT.size, generator=generator)
    return x * (1 + category) + 3 * category


def made(categories=(0, 1), **options):
    model = ContextFlowGMM(LAYOUT, **(SMALL | options))
    add(model, *categories)
    return model


def add(model, *categories):
    given = {category: features(12, category) for category in categories}
    model.add_categories(categories, given)


def trained(model, *categories, steps=10, lr=1e-2):
    """Take steps on images of categories, as a strategy does."""
    optimizer = torch.optim.Adam(model.parameter_groups(lr, 0.0), lr)
    model.train()
    torch.manual_seed(0)
    for step in range(steps):
        x = torch.cat([features(4, one, step) for one in categories])
        target = torch.tensor(categories).repeat_interleave(4)
        optimizer.zero_grad()
        model.loss(model(x), target).mean().backward()
        optimizer.step()
    return model.eval()


def shaken(channels=6, code=4, kernel=3, couplings=3, dtype=torch.float64):
    flow = ContextFlow(channels, code, couplings, 8, kernel).to(dtype)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return flow


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("channels", [2, 5, 6])
def test_the_flow_is_undone_and_its_shares_add_up_to_the_determinant(channels, kernel):
    flow = shaken(channels, kernel=kernel)
    x = torch.randn(2, 3, 4, channels, dtype=torch.float64)
    code = torch.randn(3, 4, 4, dtype=torch.float64)
    z, log_det = flow(x, code)
    torch.testing.assert_close(flow.inverse(z, code), x)
    for image in range(2):
        one = x[image : image + 1]
        jacobian = torch.autograd.functional.jacobian(lambda y: flow(y, code)[0], one)
        expected = torch.linalg.slogdet(jacobian.reshape(one.numel(), -1))[1]
        torch.testing.assert_close(log_det[image].sum(), expected)


def test_context_reaches_as_far_as_the_kernels():
    x = torch.randn(1, 9, 9, 6, dtype=torch.float64)
    changed = x.clone()
    changed[0, 4, 4] += 1
    code = torch.zeros(9, 9, 4, dtype=torch.float64)
    for kernel, reach in ((1, 0), (3, 2), (5, 4)):
        flow = shaken(kernel=kernel, couplings=2)
        moved = (flow(x, code)[0] - flow(changed, code)[0]).abs().sum((0, 3)) > 0
        rows = moved.any(1).nonzero().flatten()
        assert rows.min() == 4 - reach
        assert rows.max() == 4 + reach


def test_a_flow_starts_as_a_permutation_whatever_was_drawn_before():
    first = ContextFlow(6, 4, seed=3)
    torch.manual_seed(99)
    second = ContextFlow(6, 4, seed=3)
    x, code = torch.randn(1, 3, 3, 6), torch.randn(3, 3, 4)
    z, log_det = first(x, code)
    assert torch.equal(z, second(x, code)[0])
    assert torch.equal(z.sort(3).values, x.sort(3).values)
    assert not log_det.any()


def test_log_density_is_that_of_the_standard_normal():
    z = torch.randn(2, 3, 3, 5)
    expected = torch.distributions.Normal(0, 1).log_prob(z).sum(3) / 5
    torch.testing.assert_close(log_density(z, torch.zeros(2, 3, 3)), expected)


def test_noise_lies_in_its_regions_alone():
    torch.manual_seed(0)
    regions = noised_regions((64, 16, 16))
    assert set(regions.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < regions.mean() < 0.6
    inside = (regions[:, :, 1:] == regions[:, :, :-1]).float().mean()
    assert inside > 0.75  # they have an outline, and are no salt and pepper
    x = torch.randn(64, 16, 16, 3)
    added = noised(x, regions, 0.5) - x
    assert not added[regions == 0].any()
    deviation = added[regions > 0].std()
    assert deviation == pytest.approx(0.5, abs=0.01)


def test_the_contrast_is_least_where_densities_are_right():
    regions = torch.zeros(2, 4, 4)
    regions[0, :2] = 1
    right = torch.where(regions > 0, -5.0, 5.0)
    good, bad = (contrast_loss(one, regions) for one in (right, -right))
    assert (good < 0.1).all()
    assert (bad > 4).all()


def test_the_tail_is_of_the_largest_share():
    loss = torch.arange(20.0).view(1, 4, 5)
    assert tail_aware(loss, 0.0, 0.1).item() == 9.5
    assert tail_aware(loss, 1.0, 0.1).item() == 18.5
    assert tail_aware(loss, 0.25, 0.1).item() == pytest.approx(0.75 * 9.5 + 0.25 * 18.5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_alignment_whitens_in_part(power):
    torch.manual_seed(0)
    x = torch.randn(5000, 4) * torch.tensor([0.1, 1.0, 3.0, 9.0]) + 5
    mean, matrix = partly_whitening(x, power, 0.0)
    deviations = torch.cov(((x - mean) @ matrix).T).diagonal().sqrt()
    ratio = (deviations[3] / deviations[0]).log() / torch.tensor(90.0).log()
    assert ratio.item() == pytest.approx(1 - power, abs=0.05)


def test_features_that_never_vary_are_aligned():
    mean, matrix = partly_whitening(torch.ones(10, 3), 1.0)
    assert torch.isfinite(matrix).all()
    assert torch.equal(mean, torch.ones(3))


@pytest.mark.parametrize("auxiliary", [0, 2])
def test_an_adapted_flow_leaves_its_base_and_reads_it(auxiliary):
    base = shaken(dtype=torch.float32)
    flow = adapted(base, 2, seed=0, auxiliary=auxiliary)
    assert len(flow.blocks) == len(flow.orders) == len(base.blocks) + auxiliary
    assert not any("_base" in name for name, _ in flow.named_parameters())
    own = sum(parameter.numel() for parameter in flow.parameters())
    assert own < sum(parameter.numel() for parameter in base.parameters())
    x, code = torch.randn(1, 3, 3, 6), torch.randn(3, 3, 4)
    before = flow(x, code)[0]
    torch.testing.assert_close(before.sort(3)[0], base(x, code)[0].sort(3)[0])
    with torch.no_grad():
        base.blocks[0].inner.weight += 1
    assert not torch.allclose(flow(x, code)[0], before)
    torch.testing.assert_close(flow.inverse(flow(x, code)[0], code), x)


def test_the_density_is_the_flow_free_references():
    model, other = made(), PaDiM(LAYOUT)
    for category in (0, 1):
        other.fit_category(category, features(12, category))
    x = features(5, 1, seed=7)
    torch.testing.assert_close(model.eval()(x), other.eval()(x))


@pytest.mark.parametrize(
    "options", [{}, {"likelihood_weight": 1.0, "tail_weight": 0.3}]
)
def test_training_tells_new_features_from_noise(options):
    """Features on a curve, which the Gaussian it starts from takes for a cloud."""

    def curved(count, seed):
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for height, width, channels in LAYOUT.levels:
            angle = 6 * torch.rand(count, height, width, 1, generator=generator)
            parts.append(
                torch.cat([(angle * k).sin() for k in range(1, 1 + channels)], 3)
            )
        return LAYOUT.flatten(parts)

    model = ContextFlowGMM(LAYOUT, **(SMALL | {"hidden": 32}), noise=0.5, **options)
    model.add_categories([0], {0: curved(40, 0)})
    zeros = torch.zeros(20, dtype=torch.long)

    def contrast():
        torch.manual_seed(1)
        model.train()
        with torch.no_grad():
            return float(model.loss(model(curved(20, 1)), zeros).mean())

    before = contrast()
    optimizer = torch.optim.Adam(model.parameter_groups(1e-2, 0.0), 1e-2)
    for step in range(60):
        torch.manual_seed(2 + step)
        optimizer.zero_grad()
        model.loss(model(curved(8, 100 + step)), zeros[:8]).mean().backward()
        optimizer.step()
    assert contrast() < 0.8 * before


@pytest.mark.parametrize("rank", [0, 2])
def test_a_later_experience_moves_nothing_of_earlier_categories(rank):
    model = trained(made((0, 1), rank=rank, auxiliary=rank), 0, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    base = [name for name in before if name.startswith("base.")]
    assert bool(base) == bool(rank)
    add(model, 2)
    trained(model, 2)
    after = model.state_dict()
    # tables have grown by a row
    for name, value in before.items():
        rows = after[name][: len(value)] if value.dim() else after[name]
        assert torch.equal(rows.nan_to_num(), value.nan_to_num()), name
    moved = [name for name in after if name.startswith("categories.2.")]
    assert any(after[name].any() for name in moved)


def test_the_base_is_trained_in_the_first_experience():
    model = made((0, 1), rank=2)
    start = copy.deepcopy(model.base.state_dict())
    trained(model, 0, 1)
    assert any(
        not torch.equal(value, start[name])
        for name, value in model.base.state_dict().items()
    )


def test_loss_is_the_affinity_where_nothing_is_trained():
    model = made().eval()
    x, target = features(4), torch.tensor([0, 1, 0, 1])
    output = model(x)
    torch.testing.assert_close(
        model.loss(output, target), -output.gather(1, target[:, None])[:, 0]
    )
    model.train()
    torch.testing.assert_close(
        model.loss(output[:2], target[:2]),
        -output[:2].gather(1, target[:2, None])[:, 0],
    )


@pytest.mark.parametrize("rank", [0, 2])
def test_a_saved_model_scores_as_it_did(rank, tmp_path):
    options = {"rank": rank, "auxiliary": rank}
    model = trained(made((0, 1), **options), 0, 1)
    add(model, 2)
    trained(model, 2)
    x, y = features(6, 1, seed=3), torch.tensor([0, 1, 2, 1, 1, 2])
    model.calibrate([(x, y)])
    save_model(model, tmp_path, "context_flow", SMALL | options, {})
    again, _ = load_model(tmp_path)
    ours, theirs = (one.score(one(x), (16, 16)) for one in (model, again))
    assert torch.equal(ours.maps, theirs.maps)
    assert torch.equal(ours.category, theirs.category)


def test_an_image_in_doubt_is_as_normal_as_the_likeliest_category_says():
    """Nothing changes by far categories; within the gap every one is looked at."""
    model = made((0, 1, 2))
    x = torch.cat([features(4, one, seed=5) for one in (0, 1, 2)])
    model.calibrate([(x, torch.arange(3).repeat_interleave(4))])
    model.eval()
    output = model(x)
    every = torch.stack(
        [model.score(output, (16, 16), torch.full((12,), c)).maps for c in (0, 1, 2)]
    )
    nearest = model.infer_category(output)
    own = every[nearest, torch.arange(12)]

    model.doubt = 0.0
    assert torch.equal(model.candidates(output), nearest[:, None])
    sure = model.score(output, (16, 16))
    torch.testing.assert_close(sure.maps, own)
    torch.testing.assert_close(sure.image, own.amax((1, 2)))

    model.doubt = 1e9
    unsure = model.score(output, (16, 16))
    torch.testing.assert_close(unsure.maps, own)
    torch.testing.assert_close(unsure.image, every.amin(0).amax((1, 2)))
    assert torch.equal(unsure.category, nearest)

    gaps = output[:, nearest.unique()].sort(1, descending=True).values
    model.doubt = float((gaps[:, 0] - gaps[:, 1]).median())
    some = model.candidates(output)
    assert torch.equal(some[:, 0], nearest)
    near = output >= output.amax(1, keepdim=True) - model.doubt
    for row, said in zip(near, some, strict=True):
        assert row.nonzero().flatten().tolist() == said.unique().tolist()
    lowest = torch.where(near.T[:, :, None, None], every, torch.inf).amin(0)
    torch.testing.assert_close(model.score(output, (16, 16)).image, lowest.amax((1, 2)))


def test_memory_of_a_category_stays_small():
    layout = FeatureLayout(((32, 32, 128),))
    model = ContextFlowGMM(layout)
    x = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(0))

    def taken():
        kept = [tensor for kind in model.memory().values() for tensor in kind]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    before = taken()
    model.add_categories([0], {0: x})
    assert taken() - before < 5e6


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.kernel=2", "odd number of positions, got 2"),
        ("model.contrast_weight=0.0", "nothing trains the flow"),
        ("model.whitening=2.0", "whitening"),
        ("model.auxiliary=2", "set rank above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(setting, said):
    with pytest.raises(RecipeError, match=said):
        load_experiment("synthetic_5x3", "context_flow", [setting])


def holed(x, seed=0):
    """Return features with a square of other values in them, and its mask."""
    generator = torch.Generator().manual_seed(seed)
    where = torch.zeros(len(x), 16, 16, dtype=torch.bool)
    where[:, 4:12, 4:12] = True
    levels = [level.clone() for level in LAYOUT.unflatten(x)]
    for level, (height, width, _) in zip(levels, LAYOUT.levels, strict=True):
        inside = torch.nn.functional.adaptive_avg_pool2d(
            where[:, None].float(), (height, width)
        )
        noise = torch.randn(level.shape, generator=generator)
        level += 2 * noise.abs() * inside.movedim(1, 3)
    return LAYOUT.flatten(levels), where


def test_critics_learn_to_tell_painted_positions():
    model = made((0, 1), critic=16).train()
    target = torch.tensor([0] * 4 + [1] * 4)
    losses = []
    optimizer = torch.optim.Adam(model.parameter_groups(1e-2, 0.0), 1e-2)
    own = model.categories["0"].networks
    flows = [copy.deepcopy(one.flows.state_dict()) for one in own]
    for step in range(60):
        torch.manual_seed(step)
        x = torch.cat([features(4, one, step + 1) for one in (0, 1)])
        defects, where = holed(x, step)
        loss = model.defect_loss(x, target, defects, where)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2 * torch.tensor(2.0).log().item(), abs=0.3)
    assert losses[-1] < 0.6 * losses[0]
    for one, before in zip(own, flows, strict=True):
        for name, value in one.flows.state_dict().items():
            assert torch.equal(value, before[name])
    # and the map that it is part of says where
    x = features(6, 1, seed=99)
    defects, where = holed(x, 99)
    model.eval()
    maps = model.normality_levels(
        "context", latents_of(model(defects)), torch.ones(6, dtype=torch.long)
    )[0]
    inside = torch.zeros(8, 9, dtype=torch.bool)
    inside[2:6, 3:6] = True
    assert maps[:, inside].mean() < maps[:, ~inside].mean() - 1


def test_a_defect_that_covers_no_position_trains_by_normals_alone():
    model = made().train()
    x = features(4)
    target, where = torch.zeros(4, dtype=torch.long), torch.zeros(4, 16, 16)
    loss = model.defect_loss(x, target, x, where)
    assert 0.4 < loss.item() < 1.0
    unknown = model.defect_loss(x, target + 7, x, where)
    assert not unknown


def test_the_critic_sees_the_surroundings():
    x = torch.randn(2, 5, 5, 3)
    around = surroundings(x)
    torch.testing.assert_close(around[:, 2, 3], x[:, 1:4, 2:5].mean((1, 2)))
    torch.testing.assert_close(around[:, 0, 0], x[:, :2, :2].mean((1, 2)))
    every = torch.cartesian_prod(*(torch.arange(size) for size in x.shape[:3]))
    either = torch.stack([x, around], 3).flatten(0, 2)
    torch.testing.assert_close(with_surroundings(x, every), either)


@pytest.mark.parametrize(
    ("settings", "learns"),
    [
        ([], True),
        (["model.critic=0"], False),
        (["model.contrast_weight=0.0", "model.likelihood_weight=1.0"], False),
    ],
)
def test_defects_are_painted_for_a_critic_alone(settings, learns):
    recipe = load_experiment("synthetic_5x3", "context_flow", settings)
    assert recipe.benchmark.model.learns_defects is learns
    other = load_experiment("synthetic_5x3", "decoflow", [])
    assert not other.benchmark.model.learns_defects


@pytest.mark.parametrize("rank", [0, 2])
def test_categories_that_arrive_before_the_first_step_are_trained_together(rank):
    """As under joint training."""
    model = made((0,), rank=rank)
    add(model, 1)
    start = copy.deepcopy(model.state_dict())
    trained(model, 0, 1)
    for part in ("categories.0.", "categories.1.", *(["base."] if rank else [])):
        now = {n: v for n, v in model.state_dict().items() if n.startswith(part)}
        assert any(not torch.equal(value, start[name]) for name, value in now.items())


def test_a_minibatch_of_earlier_categories_alone_moves_nothing():
    model = trained(made((0, 1)), 0, 1)
    add(model, 2)
    before = copy.deepcopy(model.state_dict())
    trained(model, 0, steps=2)
    for name, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num()), name


def test_a_model_read_back_leaves_its_categories_alone(tmp_path):
    save_model(trained(made((0, 1)), 0, 1), tmp_path, "context_flow", SMALL, {})
    model, _ = load_model(tmp_path)
    before = copy.deepcopy(model.state_dict())
    add(model, 2)
    trained(model, 0, 2)
    for name, value in before.items():
        if name.startswith(("categories.0.", "categories.1.")):
            assert torch.equal(model.state_dict()[name], value), name
