"""Gaussians that know the place, against one distribution for every position."""

import copy

import pytest
import torch
from torch.distributions import MultivariateNormal

from avalanche_ad.models.gaussians import PlaceDensity, moments_without
from avalanche_ad.models.gaussians.place import (
    SHARES,
    PlaceSums,
    cell_of_positions,
    cell_scatter,
    chosen_share,
    place_draws,
    place_log_likelihood,
)

RIDGE = 1e-2


def images(count=12, height=6, width=6, channels=3, seed=0, alike=False):
    """Another mean at every position, another covariance in every corner."""
    own = torch.Generator().manual_seed(99)
    field = 4 * torch.randn(height, width, channels, generator=own, dtype=torch.double)
    corners = torch.randn(2, 2, channels, channels, generator=own, dtype=torch.double)
    if alike:
        corners[:] = corners[0, 0]
    rows = torch.arange(height) * 2 // height
    columns = torch.arange(width) * 2 // width
    mixing = corners[rows[:, None], columns]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(
        count, height, width, channels, generator=generator, dtype=torch.double
    )
    return field + torch.einsum("nhwi,hwij->nhwj", noise, mixing)


def cells_by_hand(size, cells):
    """Return first and last position of each cell along one side."""
    count = min(cells, size)
    return [(k * size // count, (k + 1) * size // count) for k in range(count)]


def covariances(x, cells, share, around=1):
    """Return the mean field, and Σ_c at every position, vector by vector."""
    count, height, width, channels = x.shape
    field = x.mean(0)
    r = x - field
    every = r.reshape(-1, channels)
    shared = every.T @ every / ((count - 1) * height * width)
    ridge = RIDGE * x.reshape(-1, channels).var(0, correction=0)
    # the total variance, of which that around the means is taken to be unbiased
    between = field.reshape(-1, channels).var(0, correction=0)
    ridge = RIDGE * (shared.diagonal() + between).mean()
    found = torch.empty(height, width, channels, channels, dtype=x.dtype)
    for top, bottom in cells_by_hand(height, cells):
        for left, right in cells_by_hand(width, cells):
            own = [
                r[image, row, column]
                for image in range(count)
                for row in range(max(0, top - around), min(height, bottom + around))
                for column in range(max(0, left - around), min(width, right + around))
            ]
            scatter = sum(torch.outer(one, one) for one in own)
            cell = scatter / (len(own) * (count - 1) / count)
            mixed = (1 - share) * cell + share * shared
            found[top:bottom, left:right] = mixed + ridge * torch.eye(channels)
    return field, found


@pytest.mark.parametrize(
    ("height", "width", "cells"), [(8, 8, 4), (7, 5, 3), (2, 9, 4), (1, 1, 8)]
)
def test_cells_part_the_grid_as_evenly_as_it_can_be(height, width, cells):
    cell = cell_of_positions(height, width, cells).view(height, width)
    rows, columns = cells_by_hand(height, cells), cells_by_hand(width, cells)
    for row, (top, bottom) in enumerate(rows):
        for column, (left, right) in enumerate(columns):
            own = cell[top:bottom, left:right]
            assert (own == row * len(columns) + column).all()
    assert len(cell.unique()) == len(rows) * len(columns)
    for sides in (rows, columns):
        lengths = {last - first for first, last in sides}
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("height", "width", "cells"), [(6, 6, 2), (5, 7, 3), (3, 3, 8)]
)
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_log_likelihood_is_torchs_at_every_position(height, width, cells, share):
    x, new = images(9, height, width), images(20, height, width, seed=1)
    field, sigma = covariances(x, cells, share)
    expected = MultivariateNormal(field, sigma).log_prob(new)
    moments = PlaceSums.of(x, cells).moments(cells)
    torch.testing.assert_close(moments.field, field)
    found = place_log_likelihood(
        (new - field).flatten(1, 2),
        cell_of_positions(height, width, cells),
        moments.roots(share, RIDGE),
    )
    torch.testing.assert_close(found, expected.flatten(1))


def test_what_is_around_a_cell_is_clipped_at_the_border():
    ones = torch.ones(1, 5, 5, 1)
    found = cell_scatter(ones, 2).flatten().tolist()
    assert found == [3 * 3, 3 * 4, 4 * 3, 4 * 4]  # 2 or 3 a side, and one around


@pytest.mark.parametrize("alike", [False, True])
def test_the_share_is_the_likeliest_of_every_sixth_image(alike):
    x = images(18, alike=alike)
    held = torch.arange(18) % 6 == 5
    likelihood = {}
    for share in SHARES:
        field, sigma = covariances(x[~held], 2, share)
        found = MultivariateNormal(field, sigma).log_prob(x[held])
        likelihood[share] = float(found.mean())
    best = max(likelihood, key=likelihood.__getitem__)
    assert chosen_share(x, 2, RIDGE) == best
    assert (best > 0.6) == alike


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_share_one_covariance(count):
    x = images(count)
    assert chosen_share(x, 2, RIDGE) == 1.0
    density = PlaceDensity(6, 6, 3, cells=2)
    density.fit(0, x.float())
    assert bool(density.log_likelihood(x.float().flatten(1, 2), 0).isfinite().all())
    roots = density._roots(0, x)
    torch.testing.assert_close(roots[:-1], roots[1:])


def test_constant_features_are_no_reason_to_fail():
    density = PlaceDensity(4, 4, 2)
    density.fit(0, torch.ones(8, 4, 4, 2))
    assert bool(density.log_likelihood(torch.ones(1, 16, 2), 0).isfinite().all())


def test_draws_have_the_mean_and_the_covariance_of_their_place():
    x = images(40, 5, 5)
    density = PlaceDensity(5, 5, 3, cells=2, dtype=torch.double)
    density.fit(0, x)
    field, sigma = covariances(x, 2, float(density.shares[0]))
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(25 * 4000, 3, generator=generator, dtype=torch.double)
    positions = torch.arange(25).repeat(4000)
    drawn = density.draws(0, positions, noise).view(4000, 25, 3)
    torch.testing.assert_close(drawn.mean(0), field.view(25, 3), atol=0.15, rtol=0.02)
    gaps = drawn - drawn.mean(0)
    spread = torch.einsum("npi,npj->pij", gaps, gaps) / 4000
    sigma = sigma.flatten(0, 1)
    assert ((spread - sigma).norm(dim=(1, 2)) < 0.1 * sigma.norm(dim=(1, 2))).all()


def test_draws_come_back_as_their_noise():
    roots = torch.eye(3) + torch.randn(4, 3, 3).triu(1)
    cell, noise = torch.tensor([3, 1, 1, 0, 3, 3]), torch.randn(6, 3)
    drawn = place_draws(noise, cell, roots)
    back = torch.einsum("pi,pij->pj", drawn, roots[cell])
    torch.testing.assert_close(back, noise, rtol=1e-4, atol=1e-5)


def test_given_positions_alone_are_evaluated():
    x = images(7).float()
    density = PlaceDensity(6, 6, 3, cells=4)
    density.fit(0, x)
    every = density.log_likelihood(x.flatten(1, 2), 0)
    positions = torch.tensor([35, 0, 7, 8])
    some = density.log_likelihood(x.flatten(1, 2)[:, positions], 0, positions)
    torch.testing.assert_close(some, every[:, positions])


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-2, 50.0), (300.0, 0.0)])
def test_two_bytes_a_number_are_enough(scale, shift):
    """In units of the features' spread, whatever those are."""
    x = images(12) * scale + shift
    short, long = (
        PlaceDensity(6, 6, 3, 2, dtype=t) for t in (torch.half, torch.double)
    )
    for density in (short, long):
        density.fit(0, x)
    rows = images(30, seed=5).flatten(1, 2) * scale + shift
    found, expected = (density.log_likelihood(rows, 0) for density in (short, long))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=0.05)
    numbers = 3 + 1 + 36 * 3 + 4 * 6 + 1
    assert sum(one.nbytes for one in short.buffers()) == 2 * numbers + 8 + 1


@pytest.mark.parametrize("kept", [[0, 1, 2, 5, 6, 7, 8, 9, 10, 11], [3]])
def test_moments_without_some_images_are_those_of_the_others(kept):
    x = images()
    (found,) = moments_without(x, 3, [torch.tensor(kept)])
    direct = PlaceSums.of(x[kept], 3).moments(3)
    for ours, theirs in zip(found, direct, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-7)


def test_it_grows_and_its_state_loads_in_any_length():
    density = PlaceDensity(6, 6, 3, 2)
    density.fit(2, images().float())
    before = copy.deepcopy(density)
    density.fit(0, images(seed=1).float())
    density.resize(5)
    x = images(3, seed=2).float().flatten(1, 2)
    assert torch.equal(density.log_likelihood(x, 2), before.log_likelihood(x, 2))
    assert density.images.tolist() == [12, 0, 12, 0, 0]
    other = torch.nn.ModuleList([PlaceDensity(6, 6, 3, 2)])
    other.load_state_dict(torch.nn.ModuleList([density]).state_dict())
    assert other[0].categories.tolist() == [0, 2]
    assert torch.equal(other[0].log_likelihood(x, 0), density.log_likelihood(x, 0))
