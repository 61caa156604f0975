import copy

import pytest
import torch

from avalanche_ad.training.plugins import FunctionalRegularizationPlugin
from avalanche_ad.training.plugins.flow_rehearsal import sample_pools
from avalanche_ad.training.plugins.functional_regularization import latent_drift


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


def test_the_drift_is_the_distance_of_both_flows(models):
    old, new = models
    for index, samples in enumerate(sample_pools(old, [0, 1], 40)):
        height, width, channels = old.layout.levels[index]
        # image by image: x at its own position of an otherwise empty image
        total = 0.0
        for x, position in zip(samples.x, samples.positions, strict=True):
            image = torch.zeros(1, height * width, channels)
            image[0, position] = x
            image = image.view(1, height, width, channels)
            before, _ = old.latent_level(index, image)
            after, _ = new.latent_level(index, image)
            total += float((before - after)[0, position].detach().square().sum())
        expected = total / 40 / channels
        assert expected > 1e-3
        drift = latent_drift(new, index, samples)
        assert float(drift.detach()) == pytest.approx(expected, rel=1e-3)


def test_the_loss_sums_levels(models, fake_strategy):
    old, new = models
    plugin = FunctionalRegularizationPlugin(alpha=3.0, batch_size=16, pool_size=32)
    pool = plugin.draw_pool(old, [0, 1])
    torch.manual_seed(2)
    loss = plugin.rehearsal_loss(fake_strategy(model=new), pool)
    torch.manual_seed(2)
    parts = [latent_drift(new, i, samples.draw(16)) for i, samples in enumerate(pool)]
    torch.testing.assert_close(loss, 3.0 * (parts[0] + parts[1]))


def test_a_flow_that_has_not_moved_pays_nothing(models, fake_strategy):
    old, _ = models
    plugin = FunctionalRegularizationPlugin(alpha=1.0, batch_size=16, pool_size=32)
    pool = plugin.draw_pool(old, [0, 1])
    loss = plugin.rehearsal_loss(fake_strategy(model=old), pool)
    assert float(loss.detach()) < 1e-6


def test_it_holds_the_flow_alone(models, fake_strategy):
    _, new = models
    plugin = FunctionalRegularizationPlugin(alpha=1.0, batch_size=16, pool_size=32)
    pool = plugin.draw_pool(new, [0, 1])
    moved = [samples._replace(z=samples.z + 1) for samples in pool]
    plugin.rehearsal_loss(fake_strategy(model=new), moved).backward()
    assert all(mixture.centers.grad is None for mixture in new.mixtures)
    assert all(p.grad is not None for p in new.flows.parameters() if p.requires_grad)
