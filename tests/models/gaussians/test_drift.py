import torch
from torch.distributions import MultivariateNormal

from avalanche_ad.models.gaussians import (
    linear_drift,
    mixture_log_likelihood,
    moved_gaussians,
    semantic_drift,
)


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).double()


def covariance_of(roots):
    return torch.linalg.inv(roots @ roots.transpose(-1, -2))


def test_means_drift_as_their_neighbours_do():
    left, right = drawn(300, 3) - 10, drawn(300, 3, seed=1) + 10
    before = torch.cat([left, right])
    after = torch.cat([left + 1, right - 2])
    means = torch.full((1, 3), -10.0).double(), torch.full((1, 3), 10.0).double()
    found = semantic_drift(torch.cat(means), before, after)
    expected = torch.tensor([[1.0], [-2.0]]).double().expand(2, 3)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_mean_far_from_all_latents_still_drifts():
    found = semantic_drift(
        torch.full((1, 3), 1e3).double(), drawn(50, 3), drawn(50, 3) + 1
    )
    torch.testing.assert_close(found, torch.ones(1, 3).double(), rtol=1e-3, atol=1e-3)


def test_a_linear_drift_is_found_again():
    w, b = torch.eye(4).double() + 0.3 * drawn(4, 4, seed=5), drawn(4, seed=6)
    before = drawn(2000, 4) @ drawn(4, 4, seed=7) + 3
    found, offset = linear_drift(before, before @ w.T + b, ridge=1e-9)
    torch.testing.assert_close(found, w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(offset, b, rtol=1e-4, atol=1e-4)


def test_where_nothing_is_seen_the_map_is_the_identity():
    before = drawn(200, 3)
    before[:, 2] = 0
    found, _ = linear_drift(before, before * torch.tensor([2.0, 2.0, 1.0]), 1e-6)
    torch.testing.assert_close(found[:, 2], torch.tensor([0.0, 0.0, 1.0]).double())


def test_gaussians_move_with_the_space():
    means, w, b = (
        drawn(2, 4),
        torch.eye(4).double() + 0.3 * drawn(4, 4, seed=5),
        drawn(4),
    )
    roots = drawn(2, 4, 4, seed=2).triu()
    roots.diagonal(0, -2, -1).abs_().add_(0.5)
    new_means, new_roots = moved_gaussians(means, roots, w, b)
    torch.testing.assert_close(new_roots, new_roots.triu(), rtol=0, atol=1e-9)
    x = drawn(7, 4, seed=9)
    log_weights = torch.zeros(2, 1).double()
    found = mixture_log_likelihood(
        x @ w.T + b, log_weights, new_means[:, None], new_roots[:, None]
    )
    for index in range(2):
        before = MultivariateNormal(means[index], covariance_of(roots[index]))
        expected = before.log_prob(x) - torch.linalg.slogdet(w).logabsdet
        torch.testing.assert_close(found[:, index], expected)
