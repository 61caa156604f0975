"""The flow-GMM whose coupling networks see neighbours."""

import pytest
import torch

from avalanche_ad.errors import TrainingError
from avalanche_ad.models import FlowGMM, PackNetFlowGMM
from avalanche_ad.models.hgad.flow import ConditionalFlow
from avalanche_ad.models.hgad.options import FlowGMMOptions
from avalanche_ad.models.hgad.training import drawn_positions
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.storage import load_model, save_model

GRID = (3, 4)


def shaken_flow(channels, condition=4, couplings=2, kernel=3, **options):
    flow = ConditionalFlow(channels, condition, couplings, kernel=kernel, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return flow


def maps(channels, condition=4, count=2, grid=GRID, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    total = grid[0] * grid[1]
    x = torch.randn(count * total, channels, generator=generator, dtype=dtype)
    if not condition:
        return x, None
    code = torch.randn(total, condition, generator=generator, dtype=dtype)
    return x, code.repeat(count, 1)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(("channels", "condition"), [(2, 0), (5, 4)])
def test_the_flow_is_undone_and_its_shares_add_up(channels, condition, kernel):
    flow = shaken_flow(channels, condition, kernel=kernel).double()
    x, code = maps(channels, condition)
    z, log_det = flow(x, code, GRID)
    # the rotations are stored in single precision
    torch.testing.assert_close(flow.inverse(z, code, GRID), x, rtol=0, atol=1e-5)
    part = code if code is None else code[:12]
    for image in range(2):
        rows = slice(12 * image, 12 * image + 12)
        jacobian = torch.autograd.functional.jacobian(
            lambda y: flow(y, part, GRID)[0], x[rows]
        )
        expected = torch.linalg.slogdet(jacobian.reshape(x[rows].numel(), -1))[1]
        torch.testing.assert_close(log_det[rows].sum(), expected, rtol=0, atol=2e-5)


def test_a_map_is_seen_by_itself_as_far_as_the_kernels_reach():
    x, _ = maps(6, 0, grid=(9, 9))
    changed = x.clone()
    changed[4 * 9 + 4] += 1
    for kernel, reach in ((1, 0), (3, 2), (5, 4)):
        flow = shaken_flow(6, 0, kernel=kernel).double()
        moved = (flow(x, None, (9, 9))[0] - flow(changed, None, (9, 9))[0]).abs().sum(1)
        assert not moved[81:].any()
        rows = (moved[:81].view(9, 9) > 0).any(1).nonzero().flatten()
        assert (rows.min(), rows.max()) == (4 - reach, 4 + reach)


@pytest.mark.parametrize("start", ["random", "rotation"])
def test_it_starts_as_the_flow_that_sees_one_position(start):
    plain = ConditionalFlow(6, 4, 3, seed=3, start=start)
    flow = ConditionalFlow(6, 4, 3, seed=3, start=start, kernel=3)
    x, code = maps(6, dtype=torch.float32)
    for found, expected in zip(flow(x, code, GRID), plain(x, code), strict=True):
        torch.testing.assert_close(found, expected)
    z, log_det = flow(x, code, GRID)
    (z.square().sum() - log_det.sum()).backward()
    learned = "weight" if start == "random" else "bias"  # of a last layer of 0
    for block in flow.blocks:
        layer = block.subnet[2] if start == "random" else block.subnet[-1]
        assert getattr(layer, learned).grad.abs().sum() > 0


@torch.no_grad()
def test_without_a_graph_whole_maps_are_mapped_by_themselves(monkeypatch):
    flow = shaken_flow(5)
    x, code = maps(5, count=5, dtype=torch.float32)
    z, log_det = flow(x, code, GRID)
    monkeypatch.setattr("avalanche_ad.models.hgad.flow._CHUNK", 30)  # two maps
    for found in (
        flow(x, code, GRID),
        flow.of_images(x.view(5, 12, 5), code[:12], GRID),
    ):
        torch.testing.assert_close(found[0].reshape(z.shape), z)
        torch.testing.assert_close(found[1].flatten(), log_det)


def test_single_positions_and_even_kernels_are_refused():
    with pytest.raises(TrainingError, match=r"kernel = 3 .* set model.kernel = 1"):
        shaken_flow(5)(torch.zeros(2, 5), torch.zeros(2, 4))
    for made in (lambda: shaken_flow(5, kernel=2), lambda: FlowGMMOptions(kernel=2)):
        with pytest.raises(ValueError, match=r"kernel as an odd number .* got 2"):
            made()


def test_a_training_step_sees_a_window(flow_gmm, features):
    model, whole = flow_gmm(kernel=3, position_fraction=0.3), flow_gmm(kernel=3)
    x = features(3)
    shapes = [tuple(level.z.shape) for level in latents_of(model(x)).levels]
    assert shapes == [(3, 3, 3, 6), (3, 2, 2, 6)]  # no fewer a side than the kernel
    again = latents_of(model(x)).levels[0].z
    assert torch.equal(latents_of(model(x)).levels[0].z, again)
    model.eval(), whole.eval()
    torch.testing.assert_close(model(x), whole(x))


def test_windows_are_of_neighbours_and_reach_the_edges():
    seen = torch.zeros(16 * 8)
    for seed in range(400):
        level = torch.randn(1, 16, 8, 2, generator=torch.Generator().manual_seed(seed))
        window = drawn_positions(level, 0.25, kernel=3)
        assert window.shape == (8, 4)
        assert (window.diff(dim=0) == 8).all()
        assert (window.diff(dim=1) == 1).all()
        assert (window // 8 == window[:, :1] // 8).all()
        seen[window.flatten()] += 1
    shares = seen.view(16, 8) / 400
    for lines in (shares.mean(1), shares.mean(0)):  # about half as often
        assert 0.2 < float(min(lines[0], lines[-1]) / lines.max()) < 0.7


def test_training_lowers_the_loss_and_the_saved_model_scores_alike(
    layout, features, tmp_path
):
    model = FlowGMM(layout, couplings=2, condition_channels=4, kernel=3)
    model.add_categories([0, 1])
    target = torch.arange(8) % 2
    x = 0.3 * features(8) + target[:, None]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.loss(model(x), target).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    kernels = [block.subnet[2].weight for block in model.flows[0].blocks]
    # it looks around, but for channels whose ReLU is never above zero
    assert all(
        (kernel != 0).flatten(1).all(1).float().mean() > 0.5 for kernel in kernels
    )
    model.calibrate([(x, target)])
    model.eval()
    arguments = {"couplings": 2, "condition_channels": 4, "kernel": 3}
    save_model(model, tmp_path, "flow_gmm", arguments, {"mask_size": 8})
    loaded, _ = load_model(tmp_path)
    with torch.no_grad():
        ours, theirs = (one.score(one(x), (8, 8)) for one in (model, loaded))
    assert torch.equal(ours.maps, theirs.maps)


@torch.no_grad()
def test_whole_images_are_drawn_by_inverting_whole_maps(flow_gmm):
    model = flow_gmm(kernel=3)
    categories = torch.tensor([1, 0])
    x = model.sample(categories, torch.Generator().manual_seed(5))
    again = torch.Generator().manual_seed(5)
    for index, level in enumerate(model.layout.unflatten(x)):
        total = level.shape[1] * level.shape[2]
        owners, places = (
            categories.repeat_interleave(total),
            torch.arange(total).repeat(2),
        )
        z, _ = model.sample_level(index, owners, places, again)
        found, _ = model.latent_level(index, level)
        torch.testing.assert_close(found.flatten(0, 1), z, rtol=1e-2, atol=2e-2)
    with pytest.raises(TrainingError, match="single positions"):
        model.sample_level(0, owners[:3], places[:3] + 1)


def test_packnet_keeps_the_convolutions_once_a_task(layout, features):
    model = PackNetFlowGMM(layout, couplings=2, condition_channels=4, kernel=3)
    x = features(3)

    def shake():
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)

    model.add_categories([0])
    shake()
    model.prune(0.5)
    model.freeze_pruned()
    model.eval()
    before = model(x)[:, 0]
    model.add_categories([1])
    shake()
    # of as many categories, each task's share of them
    torch.testing.assert_close(model(x)[:, 0], before - torch.tensor(2.0).log())
