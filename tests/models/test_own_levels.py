import math

import pytest
import torch

from avalanche_ad.features.layout import FeatureLayout
from avalanche_ad.models import FeatureGMM
from avalanche_ad.models.gaussians import mixture_log_likelihood
from avalanche_ad.models.hgad.flow import ConditionalFlow
from avalanche_ad.models.latents import latents_of
from avalanche_ad.models.own_levels import affinities, spread_positions
from avalanche_ad.models.position_code import position_codes


@pytest.fixture(scope="module")
def fitted():
    model = FeatureGMM(FeatureLayout(((24, 20, 5), (6, 6, 3))), components=2)
    size = model.layout.size
    for category in range(3):
        generator = torch.Generator().manual_seed(category)
        x = torch.randn(6, size, generator=generator) + 0.05 * category
        model.fit_category(category, x)
    return model.eval()


def full(model, x):
    """Return log p(x|c), all categories at all positions, (N, P, C) per level."""
    return [
        model.mixtures[index]
        .log_likelihood(level.flatten(0, 2), model.known_categories)
        .view(len(x), -1, 3)
        for index, level in enumerate(model.layout.unflatten(x))
    ]


def test_positions_are_spread_evenly():
    rows = spread_positions(32, 32, 8).div(32, rounding_mode="floor")
    assert rows.unique().tolist() == [2, 6, 10, 14, 18, 22, 26, 30]
    assert torch.equal(spread_positions(5, 6), torch.arange(30))


def test_levels_of_a_category_are_those_of_all(fitted):
    x = torch.randn(5, fitted.layout.size)
    latents, every = latents_of(fitted(x)), full(fitted, x)
    for category in ([0, 1, 2, 1, 0], [0, 2, 2, 1, 1]):
        found = fitted.log_likelihood_levels(latents, torch.tensor(category))
        for level, of, width in zip(found, every, (5, 3), strict=True):
            own = of[torch.arange(5), :, category] / width
            torch.testing.assert_close(level.flatten(1), own)


def test_affinities_are_means_of_few_positions_or_of_all(fitted):
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(5, fitted.layout.size, generator=generator)
    output, every = fitted(x), full(fitted, x)
    shapes = ((24, 20), (6, 6))

    def means(wanted):
        parts = [
            level[:, rows].mean(1) / math.sqrt(width)
            for level, rows, width in zip(every, wanted, (5, 3), strict=True)
        ]
        return torch.stack(parts).mean(0) - math.log(3)

    few = means([spread_positions(*shape) for shape in shapes])
    whole = means([torch.arange(height * width) for height, width in shapes])
    either = [torch.isclose(output, other, atol=1e-5) for other in (few, whole)]
    assert (either[0] | either[1]).all()
    assert torch.equal(output.argmax(1), whole.argmax(1))


def test_what_is_far_stays_far_where_all_positions_say_less_than_a_few():
    """As where borders, of which a few positions have none, are unlikely."""
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(4, 64, 3, generator=generator) - torch.tensor([0.0, 0.0, 3.0])
    few = level.mean(1)
    found = affinities([level], lambda rows, column: few[rows, column] - 9)
    assert set(found.argmax(1).tolist()) <= {0, 1}
    torch.testing.assert_close(found - found[:, :1], few - few[:, :1])


def test_only_what_is_near_is_told_by_all_positions():
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(2, 64, 3, generator=generator)
    level[0] -= level[0].mean(0)
    level[1, :, 0] += 20
    asked = []

    def of_all(rows, column):
        asked.append((rows.tolist(), column))
        return torch.full((len(rows),), 7.0 + column)

    found = affinities([level], of_all)
    assert asked == [([0], 0), ([0], 1), ([0], 2)]
    assert found[0].tolist() == [7, 8, 9]
    torch.testing.assert_close(found[1], level[1].mean(0))


@pytest.mark.parametrize("width", [5, 32, 70])
def test_triangles_give_what_whole_products_give(width):
    x = torch.randn(700, width)
    roots = torch.randn(2, 3, width, width).triu()
    roots.diagonal(0, -2, -1).abs_().add_(0.5)
    mixture = torch.randn(2, 3).log_softmax(1), torch.randn(2, 3, width), roots
    with torch.no_grad():
        found = mixture_log_likelihood(x, *mixture)
    with torch.enable_grad():
        expected = mixture_log_likelihood(x, *mixture)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("channels", [0, 8])
def test_a_flow_maps_images_as_it_maps_vectors(channels):
    flow = ConditionalFlow(6, channels, couplings=3)
    for block in flow.blocks:
        block.global_scale.data += torch.randn_like(block.global_scale)
        block.global_offset.data += torch.randn_like(block.global_offset)
    x, code = torch.randn(2, 50 * 50, 6), position_codes(channels, 50, 50)
    z, log_det = flow.of_images(x, code if channels else None)
    whole = flow(x.flatten(0, 1), code.repeat(2, 1) if channels else None)
    torch.testing.assert_close(z.flatten(0, 1), whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(log_det.flatten(), whole[1], rtol=1e-4, atol=1e-5)
