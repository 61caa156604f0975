import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
)

from avalanche_ad.models.hgad.mixture import (
    HierarchicalMixture,
    category_log_likelihood,
    inner_centers,
    orthogonal_centers,
    pattern_centers,
    squared_distances,
)

NORM = 5 / math.sqrt(2)


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, 3),
    positions=st.integers(1, 5),
    dimensions=st.integers(1, 40),
    components=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_density_is_a_mixture_of_unit_gaussians(
    images, positions, dimensions, components, seed
):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    z, log_det = draw(images, positions, dimensions), draw(images, positions)
    centers, logits = draw(components, dimensions), draw(components)
    unit = torch.ones_like(centers)
    mixture = MixtureSameFamily(
        Categorical(logits=logits), Independent(Normal(centers, unit), 1)
    )
    torch.testing.assert_close(
        category_log_likelihood(z, log_det, centers, logits),
        mixture.log_prob(z) + log_det,
        rtol=1e-9,
        atol=1e-9,
    )


def test_density_takes_one_mixture_an_image():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 4, generator=generator)
    centers = torch.randn(2, 5, 4, generator=generator)
    logits = torch.randn(2, 5, generator=generator)
    log_det = torch.zeros(2, 3)
    both = category_log_likelihood(z, log_det, centers, logits)
    for row in range(2):
        one = category_log_likelihood(
            z[row : row + 1], log_det[:1], centers[row], logits[row]
        )
        torch.testing.assert_close(both[row : row + 1], one)


def test_squared_distances():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 4, generator=generator)
    centers = torch.randn(5, 4, generator=generator)
    expected = (z[:, :, None] - centers).square().sum(-1)
    torch.testing.assert_close(squared_distances(z, centers), expected)


def test_inner_losses_move_the_offsets_and_never_the_main_centre():
    centers = torch.randn(2, 3, 4, requires_grad=True)
    positions = inner_centers(centers)
    torch.testing.assert_close(positions[:, 0], centers[:, 0])
    torch.testing.assert_close(positions[:, 1:], centers[:, :1] + centers[:, 1:])
    positions.square().sum().backward()
    assert float(centers.grad[:, 0].abs().max()) == 0
    assert float(centers.grad[:, 1:].abs().min()) > 0


def assert_orthogonal(centers):
    count = len(centers)
    expected = NORM**2 * torch.eye(count)
    torch.testing.assert_close(centers @ centers.T, expected, rtol=0, atol=1e-4)
    apart = torch.cdist(centers, centers)[~torch.eye(count, dtype=torch.bool)]
    torch.testing.assert_close(apart, torch.full_like(apart, 5.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("categories", "dimensions", "period"),
    [(15, 45, 16), (15, 24, 16), (32, 32, 16), (16, 16, 4), (8, 8, 16), (15, 256, 16)],
)
def test_pattern_centres_are_orthogonal_and_five_apart(categories, dimensions, period):
    assert_orthogonal(pattern_centers(range(categories), dimensions, period))


def test_pattern_of_a_category_does_not_depend_on_the_others():
    everything = pattern_centers(range(20), 32)
    for group in ([3], [19, 0], [7, 8, 9]):
        assert torch.equal(pattern_centers(group, 32), everything[list(group)])


@pytest.mark.parametrize(("dimensions", "period"), [(16, 16), (45, 16), (6, 4)])
def test_pattern_centres_stay_apart_when_the_rows_are_used_up(dimensions, period):
    centers = pattern_centers(range(5 * dimensions), dimensions, period)
    torch.testing.assert_close(
        centers.norm(dim=1), torch.full((len(centers),), NORM), rtol=1e-5, atol=0
    )
    distances = torch.cdist(centers, centers) + 9 * torch.eye(len(centers))
    assert float(distances.min()) > 0.5


def test_orthogonal_centres_are_orthogonal_to_all_there_are():
    generator = torch.Generator().manual_seed(0)
    first = orthogonal_centers(torch.zeros(0, 12), 3, generator)
    second = orthogonal_centers(first, 4, generator)
    assert_orthogonal(torch.cat([first, second]))
    trained = torch.randn(5, 12, generator=generator)
    third = orthogonal_centers(trained, 2, generator)
    assert float((third @ trained.T).abs().max()) < 1e-4
    assert_orthogonal(third)


def test_orthogonal_centres_beyond_the_dimensions_are_random_directions():
    generator = torch.Generator().manual_seed(0)
    centers = orthogonal_centers(torch.zeros(0, 4), 6, generator)
    assert_orthogonal(centers[:4])
    torch.testing.assert_close(centers.norm(dim=1), torch.full((6,), NORM))
    more = orthogonal_centers(centers, 2, generator)
    torch.testing.assert_close(more.norm(dim=1), torch.full((2,), NORM))
    assert float(torch.cdist(torch.cat([centers, more]), more).topk(2, 0)[0].min()) > 0


def test_resize_keeps_what_is_there():
    mixture = HierarchicalMixture(4, 3, seed=5)
    mixture.resize(2)
    mixture.add([1], torch.full((1, 4), 2.0))
    with torch.no_grad():
        mixture.class_logits += torch.tensor([1.0, 2.0])
        mixture.inner_logits += torch.arange(6.0).view(2, 3)
    before = {name: value.clone() for name, value in mixture.state_dict().items()}
    mixture.resize(5)
    mixture.resize(3)
    assert mixture.num_categories == 5
    for name, value in mixture.state_dict().items():
        assert len(value) == 5, name
        assert torch.equal(value[:2], before[name]), name
    assert mixture.known.tolist() == [False, True, False, False, False]
    assert float(mixture.class_logits[2:].detach().abs().max()) == 0
    assert all(parameter.requires_grad for parameter in mixture.parameters())


@settings(max_examples=20, deadline=None)
@given(steps=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_offsets_do_not_depend_on_the_grouping(steps):
    total = sum(steps)
    at_once, grown = HierarchicalMixture(4, 3), HierarchicalMixture(4, 3)
    at_once.resize(total)
    for count in range(len(steps)):
        grown.resize(sum(steps[: count + 1]))
    assert torch.equal(at_once.centers, grown.centers)
    offsets = at_once.centers[:, 1:].flatten(0, 1)
    assert len(offsets.unique(dim=0)) == len(offsets)
    assert float(at_once.centers[:, 0].detach().abs().max()) == 0
