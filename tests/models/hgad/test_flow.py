import copy

import numpy as np
import pytest
import torch

from avalanche_ad.models.hgad.flow import ConditionalFlow
from avalanche_ad.models.position_code import position_code

SIZES = [(2, 0, 1), (5, 0, 3), (3, 4, 2), (24, 8, 4), (45, 16, 4), (8, 4, 12)]
sizes = pytest.mark.parametrize(("channels", "condition", "couplings"), SIZES)


def shaken_flow(channels, condition, couplings, **options):
    flow = ConditionalFlow(channels, condition, couplings, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return flow


def inputs(count, channels, condition, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, channels, generator=generator, dtype=dtype)
    if not condition:
        return x, None
    return x, torch.randn(count, condition, generator=generator, dtype=dtype)


def test_position_code_is_hgads(golden):
    code = position_code(8, 3, 5)
    torch.testing.assert_close(code.double(), golden["posenc_8_3_5"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [0, -4, 2, 6])
def test_position_code_refuses_channels_that_are_no_multiple_of_four(channels):
    with pytest.raises(ValueError, match=f"multiple of 4, got {channels}"):
        position_code(channels, 2, 2)


@sizes
def test_inverse_undoes_the_flow(channels, condition, couplings):
    flow = shaken_flow(channels, condition, couplings)
    x, code = inputs(200, channels, condition)
    with torch.no_grad():
        z, _ = flow(x, code)
        back = flow.inverse(z, code)
    assert float((z - x).abs().max()) > 0.1
    assert float((back - x).abs().max()) < 1e-4


@sizes
def test_log_determinant_is_autograds(channels, condition, couplings):
    flow = shaken_flow(channels, condition, couplings).double()
    x, code = inputs(3, channels, condition, torch.float64)
    _, log_det = flow(x, code)
    for row in range(len(x)):
        given = None if code is None else code[row : row + 1]

        def one(point, given=given):
            return flow(point[None], given)[0][0]

        jacobian = torch.autograd.functional.jacobian(one, x[row])
        expected = torch.linalg.slogdet(jacobian).logabsdet
        # the rotations are stored in single precision
        torch.testing.assert_close(log_det[row], expected, rtol=0, atol=2e-6)


def test_condition_matters():
    flow = shaken_flow(6, 4, 2)
    x, code = inputs(10, 6, 4)
    assert not torch.allclose(flow(x, code)[0], flow(x, -code)[0], atol=1e-3)


def test_seed_alone_decides_the_flow():
    first = ConditionalFlow(6, 4, 2, seed=3).state_dict()
    np.random.seed(99)  # noqa: NPY002
    np.random.rand(5)  # noqa: NPY002
    torch.manual_seed(99)
    torch.randn(5)
    second = ConditionalFlow(6, 4, 2, seed=3).state_dict()
    other = ConditionalFlow(6, 4, 2, seed=4).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("blocks.0.w_perm", "blocks.0.subnet.0.weight"):
        assert not torch.equal(first[name], other[name])
    assert not torch.equal(first["blocks.0.w_perm"], first["blocks.1.w_perm"])


def test_global_generators_are_left_alone():
    numpy_before = np.random.get_state()  # noqa: NPY002
    torch_before = torch.get_rng_state()
    ConditionalFlow(6, 4, 2, seed=3)
    numpy_after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(numpy_before[1], numpy_after[1])
    assert numpy_before[2:] == numpy_after[2:]
    assert torch.equal(torch_before, torch.get_rng_state())


def test_accelerators_generators_are_left_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    ConditionalFlow(6, 4, 2, seed=3)
    assert seeded == []


@pytest.mark.parametrize("condition", [0, 4])
def test_every_parameter_trains(condition):
    flow = shaken_flow(5, condition, 3)
    z, log_det = flow(*inputs(20, 5, condition))
    (0.5 * z.square().sum(1) - log_det).mean().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_copies_and_state_give_the_same_flow():
    flow = shaken_flow(5, 4, 2)
    x, code = inputs(10, 5, 4)
    z, log_det = flow(x, code)
    (z.sum() + log_det.sum()).backward()

    twin = copy.deepcopy(flow)
    loaded = ConditionalFlow(5, 4, 2, seed=11)
    assert not torch.equal(loaded(x, code)[0], z)
    loaded.load_state_dict(flow.state_dict())
    for other in (twin, loaded):
        assert torch.equal(other(x, code)[0], z)
        assert torch.equal(other(x, code)[1], log_det)
        torch.testing.assert_close(other.inverse(z, code), x, rtol=0, atol=1e-4)


def test_a_rotation_keeps_distances_and_volume_and_still_learns():
    flow = ConditionalFlow(8, 4, couplings=3, start="rotation")
    x, condition = torch.randn(20, 8), torch.randn(20, 4)
    z, log_det = flow(x, condition)
    torch.testing.assert_close(torch.cdist(z, z), torch.cdist(x, x))
    torch.testing.assert_close(log_det, torch.zeros(20))
    z.square().sum().backward()
    assert all(block.subnet[-1].weight.grad.abs().sum() > 0 for block in flow.blocks)


def test_a_random_start_is_what_it_was_before_there_were_others():
    flow = ConditionalFlow(8, 4, couplings=1, seed=3)
    first, _, last = flow.blocks[0].subnet
    torch.default_generator.manual_seed(3)
    again = torch.nn.Linear(first.in_features, first.out_features)
    assert torch.equal(first.weight, again.weight)
    assert last.weight.abs().sum() > 0
