"""Samples of the flow-GMM, pushed back through its flows."""

import pytest
import torch

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FlowGMM


@pytest.fixture
def model():
    made = FlowGMM(
        FeatureLayout(((2, 3, 6), (1, 1, 8))),
        couplings=2,
        condition_channels=4,
        centers_per_category=3,
    )
    made.add_categories([0, 1, 2])
    with torch.no_grad():  # Gaussians of a group far from each other, of unlike weight
        for mixture in made.mixtures:
            mixture.centers[:, 1:] *= 30
            mixture.inner_logits[:] = torch.tensor([0.5, 0.2, 0.3]).log()
    return made


@pytest.mark.parametrize("inner", [True, False])
@torch.no_grad()
def test_latents_are_of_the_categorys_gaussians(model, inner):
    generator = torch.Generator().manual_seed(0)
    y = torch.tensor([2, 0]).repeat(1500)
    for index, total in enumerate((6, 1)):
        positions = torch.arange(3000) % total
        z, x = model.sample_level(index, y, positions, generator, inner)
        back, _ = model.flows[index](x, model.condition(index, positions))
        torch.testing.assert_close(back, z, rtol=1e-2, atol=2e-2)
        group = model.mixtures[index].centers.clone()
        group[:, 1:] += group[:, :1]
        for category in (0, 2):
            own = z[y == category]
            nearest = torch.cdist(own, group[category]).argmin(1)
            shares = nearest.bincount(minlength=3) / len(own)
            expected = [0.5, 0.2, 0.3] if inner else [1.0, 0.0, 0.0]
            torch.testing.assert_close(
                shares, torch.tensor(expected), rtol=0, atol=0.06
            )
            noise = own - group[category][nearest]
            assert float(noise.square().mean()) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("inner", [True, False])
@torch.no_grad()
def test_images_hold_every_position_at_its_place(model, inner):
    """The same draws, one position of one image after the other."""
    categories = torch.tensor([1, 0])
    x = model.sample(categories, torch.Generator().manual_seed(5), inner)
    assert x.shape == (2, model.layout.size)
    again = torch.Generator().manual_seed(5)
    for index, level in enumerate(model.layout.unflatten(x)):
        total = level.shape[1] * level.shape[2]
        z, _ = model.sample_level(
            index,
            categories.repeat_interleave(total),
            torch.arange(total).repeat(2),
            again,
            inner,
        )
        found, _ = model.latent_level(index, level)
        torch.testing.assert_close(found.flatten(0, 1), z, rtol=1e-2, atol=2e-2)


def test_a_generator_decides_all_draws(model):
    draws = [
        model.sample(torch.tensor([0, 2]), torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not draws[0].requires_grad
