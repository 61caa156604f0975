import copy

import pytest
import torch

from avalanche_ad.training.plugins import LatentPseudoRehearsalPlugin
from avalanche_ad.training.plugins.flow_rehearsal import LevelSamples, sample_pools
from avalanche_ad.training.plugins.functional_regularization import latent_drift
from avalanche_ad.training.plugins.latent_pseudo_rehearsal import (
    embedding_drift,
    spread_within,
)


@pytest.fixture
def models(make_model):
    """The model before an experience, and one whose flows have moved since."""
    old = make_model()
    old.add_categories([0, 1])
    new = copy.deepcopy(old)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in new.flows.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return old, new


def test_the_drift_is_the_distance_of_both_inverses(models):
    old, new = models
    for index, samples in enumerate(sample_pools(old, [0, 1], 40)):
        condition = old.condition(index, samples.positions)
        before = old.flows[index].inverse(samples.z, condition)
        after = new.flows[index].inverse(samples.z, condition)
        expected = (before - after).square().sum(1).mean() / before.shape[1]
        assert float(expected.detach()) > 0.01
        torch.testing.assert_close(
            embedding_drift(new, index, samples), expected, rtol=1e-3, atol=1e-5
        )


def test_the_spread_is_within_categories():
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [100.0, 5.0], [100.0, 9.0]])
    y = torch.tensor([0, 0, 4, 4])
    nothing = torch.zeros(4, 2)
    # variances (1, 0) and (0, 4)
    assert spread_within(LevelSamples(nothing, x, y, y)) == pytest.approx(1.25)


def test_the_loss_is_in_units_of_the_spread(models, fake_strategy):
    old, new = models
    plugin = LatentPseudoRehearsalPlugin(alpha=3.0, batch_size=16, pool_size=32)
    pool = plugin.draw_pool(old, [0, 1])
    torch.manual_seed(2)
    loss = plugin.rehearsal_loss(fake_strategy(model=new), pool)
    torch.manual_seed(2)
    parts = [
        embedding_drift(new, index, samples.draw(16)) / spread
        for index, (samples, spread) in enumerate(pool)
    ]
    torch.testing.assert_close(loss, 3.0 * (parts[0] + parts[1]))
    for samples, spread in pool:
        assert spread == pytest.approx(spread_within(samples))
    loss.backward()
    assert all(p.grad is not None for p in new.flows.parameters() if p.requires_grad)
    assert all(mixture.centers.grad is None for mixture in new.mixtures)


def test_a_flow_that_has_not_moved_pays_nothing(models, fake_strategy):
    old, _ = models
    plugin = LatentPseudoRehearsalPlugin(alpha=1.0, batch_size=16, pool_size=32)
    pool = plugin.draw_pool(old, [0, 1])
    loss = plugin.rehearsal_loss(fake_strategy(model=old), pool)
    assert float(loss.detach()) < 1e-6


def test_it_is_not_functional_regularization(models):
    """A stretching flow tells them apart: ‖Δz‖² against ‖∂f⁻¹/∂z · Δz‖²."""
    old, new = models
    samples = sample_pools(old, [0, 1], 200)[0]
    with torch.no_grad():
        drift = latent_drift(new, 0, samples)
        embeddings = embedding_drift(new, 0, samples)
    assert abs(float(embeddings / drift) - 1) > 0.02
    # to first order the latter is the former, taken through the inverse's Jacobian
    direction = [0.01 * torch.randn_like(p) for p in old.flows.parameters()]
    near = copy.deepcopy(old)
    with torch.no_grad():
        for parameter, step in zip(near.flows.parameters(), direction, strict=True):
            parameter += 0.01 * step
    condition = old.condition(0, samples.positions)
    z, _ = near.flows[0](samples.x, condition)
    _, change = torch.autograd.functional.jvp(
        lambda latents: old.flows[0].inverse(latents, condition),
        samples.z,
        (z - samples.z).detach(),
    )
    expected = float(change.square().mean())
    assert expected > 0
    found = float(embedding_drift(near, 0, samples).detach())
    assert found == pytest.approx(expected, rel=0.05)
