import pytest
import torch

from avalanche_ad.models.alignment.mixtures import (
    aligned_mixture,
    climbed_mixture,
    pushed_moments,
)
from avalanche_ad.models.gaussians import Moments, mixture_log_likelihood


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).double()


def covariance_of(roots):
    return torch.linalg.inv(roots @ roots.transpose(-1, -2))


def test_each_group_has_its_moments():
    component = torch.arange(6000) % 3
    offset = torch.tensor([0.0, 5.0, -7.0]).double()
    z = drawn(6000, 4) @ drawn(4, 4, seed=1) + offset[component][:, None]
    weights, means, roots = aligned_mixture(z, component, 3, shrinkage=0.0)
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3).double())
    assert torch.equal(roots, roots.triu())
    for index in range(3):
        own = z[component == index]
        torch.testing.assert_close(means[index], own.mean(0))
        expected = torch.cov(own.T)
        found = covariance_of(roots[index])
        assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("kind", ["diagonal", "spherical"])
def test_less_is_kept_of_a_covariance(kind):
    z = drawn(4000, 3) * torch.tensor([1.0, 2.0, 3.0])
    _, _, roots = aligned_mixture(z, torch.zeros(4000).long(), 1, kind, 0.0)
    variances = covariance_of(roots[0])
    assert torch.equal(variances, variances.diagonal().diag())
    expected = torch.tensor([1.0, 4.0, 9.0] if kind == "diagonal" else [14 / 3] * 3)
    torch.testing.assert_close(variances.diagonal().float(), expected, rtol=0.1, atol=0)


def test_a_group_of_few_latents_borrows_and_an_empty_one_counts_for_nothing():
    z = torch.cat([drawn(500, 4), drawn(1, 4, seed=3) + 9])
    component = torch.cat([torch.zeros(500), torch.ones(1)]).long()
    weights, means, roots = aligned_mixture(z, component, 3)
    assert torch.isfinite(roots).all()
    torch.testing.assert_close(means[1], z[-1])
    assert float(covariance_of(roots[1]).diagonal().min()) > 0.5
    assert float(weights[2]) < 1e-6


def test_another_covariance_is_refused():
    with pytest.raises(ValueError, match="got 'tied'"):
        aligned_mixture(drawn(5, 2), torch.zeros(5).long(), 1, "tied")


def test_gradient_steps_climb_to_the_moments():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, 4, generator=generator) @ torch.randn(
        4, 4, generator=generator
    )
    z = z + 3
    component = torch.zeros(4000, dtype=torch.long)
    best = aligned_mixture(z, component, 1, shrinkage=0.0)

    def likelihood(mixture):
        weights, means, roots = (part[None].float() for part in mixture)
        return float(mixture_log_likelihood(z, weights.log(), means, roots).mean())

    start = torch.ones(1), torch.zeros(1, 4), torch.eye(4)[None].clone()
    values = [
        likelihood(climbed_mixture(z, *start, steps=steps, lr=2e-2))
        for steps in (0, 1, 10, 100)
    ]
    assert values == sorted(values)
    assert values[0] == pytest.approx(likelihood(start))
    # zeros off the diagonal stay, so the best there is is the best diagonal one
    diagonal = aligned_mixture(z, component, 1, "diagonal", shrinkage=0.0)
    reached = climbed_mixture(z, *start, steps=1500, lr=2e-2)
    assert likelihood(reached) == pytest.approx(likelihood(diagonal), abs=0.05)
    full = torch.eye(4)[None] + 1e-6 * torch.ones(4, 4).triu(1)
    reached = climbed_mixture(z, *start[:2], full, steps=3000, lr=2e-2)
    assert likelihood(reached) == pytest.approx(likelihood(best), abs=0.05)


def two_gaussians():
    root = drawn(2, 3, 3, seed=1)
    covariance = root @ root.transpose(1, 2) + 0.1 * torch.eye(3).double()
    return Moments(torch.tensor([0.3, 0.7]).double(), 3 * drawn(2, 3), covariance)


def samples_of(gaussians, count):
    component = torch.arange(count) % 2
    roots = torch.linalg.cholesky(gaussians.covariance)
    noise = drawn(count, 3, seed=2)
    return (
        gaussians.mean[component] + torch.einsum("nij,nj->ni", roots[component], noise),
        component,
    )


def test_an_affine_map_pushes_gaussians_exactly_however_few_samples():
    gaussians = two_gaussians()
    w, b = drawn(3, 3, seed=5), drawn(3, seed=6)
    x, component = samples_of(gaussians, 12)
    found = pushed_moments(gaussians, x, x @ w + b, component)
    torch.testing.assert_close(found.mean, gaussians.mean @ w + b)
    torch.testing.assert_close(found.covariance, w.T @ gaussians.covariance @ w)
    torch.testing.assert_close(found.weight, gaussians.weight)


def test_a_bent_map_pushes_gaussians_to_the_moments_of_many_samples():
    gaussians = two_gaussians()
    w = drawn(3, 3, seed=5)

    def bend(x):
        return x @ w + 0.5 * torch.sin(x)

    many, of_many = samples_of(gaussians, 400_000)
    truth = [bend(many[of_many == k]) for k in (0, 1)]
    x, component = samples_of(gaussians, 2000)
    found = pushed_moments(gaussians, x, bend(x), component)
    for k in (0, 1):
        size = truth[k].std()
        assert (found.mean[k] - truth[k].mean(0)).abs().max() < 0.03 * size
        gap = found.covariance[k] - truth[k].T.cov()
        assert gap.norm() < 0.06 * truth[k].T.cov().norm()
        assert torch.linalg.eigvalsh(found.covariance[k]).min() > 0


def test_a_component_without_a_sample_is_pushed_all_the_same():
    gaussians = two_gaussians()
    x, component = samples_of(gaussians, 40)
    own = component == 0
    w = drawn(3, 3, seed=5)
    found = pushed_moments(gaussians, x[own], x[own] @ w, component[own])
    torch.testing.assert_close(found.mean, gaussians.mean @ w)
