import copy

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from avalanche_ad.models import FeatureGMM
from avalanche_ad.models.gaussians import mixture_log_likelihood
from avalanche_ad.models.latents import latents_of


@pytest.mark.parametrize("components", [1, 3])
def test_log_likelihood_is_scikit_learns(layout, features, components):
    model = FeatureGMM(layout, components=components, seed=4)
    train, x = features(12, seed=1), features(3, seed=2)
    model.fit_category(0, train)
    found = model.log_likelihood_levels(
        latents_of(model(x)), torch.zeros(3, dtype=torch.long)
    )
    for index, (level, unpacked) in enumerate(
        zip(layout.unflatten(train), layout.unflatten(x), strict=True)
    ):
        rows = level.reshape(-1, 6).double()
        mixture = GaussianMixture(
            components,
            reg_covar=0.01 * float(level.reshape(-1, 6).var(0).mean()),
            max_iter=30,
            random_state=4,
        ).fit(rows.numpy())
        expected = mixture.score_samples(unpacked.reshape(-1, 6).double().numpy())
        np.testing.assert_allclose(
            6 * found[index].flatten().numpy(), expected, rtol=1e-4, atol=1e-4
        )


def test_output_is_the_mean_log_likelihood_of_each_category(feature_gmm, features):
    model = feature_gmm()
    output = model(features(2))
    for category in range(3):
        levels = model.log_likelihood_levels(
            latents_of(output), torch.full((2,), category)
        )
        mean = torch.stack([6 * level.mean((1, 2)) for level in levels]).mean(0)
        torch.testing.assert_close(
            output[:, category], mean / 6**0.5 - float(np.log(3)), rtol=1e-4, atol=1e-4
        )


def test_own_category_is_inferred(feature_gmm, features):
    model = feature_gmm()
    for category in range(3):
        output = model(features(6, seed=category) + category)
        assert model.infer_category(output).tolist() == [category] * 6


def test_fitting_one_category_leaves_the_others(feature_gmm, features):
    model = feature_gmm(known=(0, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fit_category(1, features(6, seed=5))
    assert model.known_categories.tolist() == [0, 1, 2]
    for name, value in model.state_dict().items():
        if name not in ("placeholder", "level_maximum"):
            assert torch.equal(value[[0, 2]], before[name][[0, 2]]), name


def test_order_of_arrival_changes_nothing(feature_gmm, features):
    x = features(3)
    assert torch.equal(feature_gmm((0, 1, 2))(x), feature_gmm((2, 0, 1))(x))


def test_positions_are_drawn_by_the_seed(layout, features):
    def fitted(seed, draws):
        torch.manual_seed(draws)
        model = FeatureGMM(layout, max_positions=20, seed=seed)
        model.fit_category(0, features(12))
        return model.mixtures[0].means

    assert torch.equal(fitted(0, 1), fitted(0, 2))
    assert not torch.equal(fitted(0, 1), fitted(1, 1))


def test_constant_features_are_no_reason_to_fail(layout):
    model = FeatureGMM(layout, components=2)
    model.fit_category(0, torch.ones(4, layout.size))
    assert bool(model(torch.ones(1, layout.size)).isfinite().all())


def test_nothing_of_it_trains(feature_gmm, features):
    model = feature_gmm()
    assert [parameter.requires_grad for parameter in model.parameters()] == [False]
    assert not model(features(2)).requires_grad
    twin = copy.deepcopy(model)
    assert torch.equal(twin(features(2)), model(features(2)))


def test_mixture_log_likelihood_is_torchs():
    """Of more rows than one piece has."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 4, generator=generator)
    weights = torch.rand(3, 2, generator=generator).log_softmax(1)
    means = torch.randn(3, 2, 4, generator=generator)
    roots = torch.randn(3, 2, 4, 4, generator=generator).tril(-1) * 0.3
    roots += torch.eye(4) * (0.5 + torch.rand(3, 2, 4, 1, generator=generator))
    normal = torch.distributions.MultivariateNormal(
        means, precision_matrix=roots @ roots.mT
    )
    expected = (normal.log_prob(x[:, None, None]) + weights).logsumexp(2)
    found = mixture_log_likelihood(x, weights, means, roots)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert mixture_log_likelihood(
        x, *(v[:0] for v in (weights, means, roots))
    ).shape == (
        5000,
        0,
    )
