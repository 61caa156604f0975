import io
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians import (
    IncrementalGMM,
    Moments,
)


def blobs(count=600, width=4, seed=0, centers=3):
    generator = np.random.default_rng(seed)
    means = np.random.default_rng(7).normal(0, 6, (centers, width))
    label = generator.integers(0, centers, count)
    mixing = np.random.default_rng(8).normal(0, 0.5, (centers, width, width))
    noise = generator.normal(size=(count, width))
    x = means[label] + np.einsum("ni,nij->nj", noise, mixing[label])
    return torch.tensor(x, dtype=torch.float32), label


def fitted(x, batch=50, **options):
    mixture = IncrementalGMM(x.shape[1], **options)
    for part in x.split(batch):
        mixture.partial_fit(part)
    return mixture


def as_distribution(mixture):
    found = mixture.parameters_
    return MixtureSameFamily(
        Categorical(found.weight.double()),
        MultivariateNormal(found.mean.double(), found.covariance.double()),
    )


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
@pytest.mark.parametrize("components", [1, 3])
def test_log_likelihood_is_that_of_torch_distributions(covariance, components):
    x, _ = blobs()
    mixture = fitted(x, components=components, covariance=covariance, rank=2)
    expected = as_distribution(mixture).log_prob(x.double())
    torch.testing.assert_close(
        mixture.score_samples(x).double(), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("batch", [1, 7, 600])
def test_one_gaussian_is_the_fit_to_all_rows_whatever_the_minibatches(batch):
    x, _ = blobs()
    found = fitted(x, batch, regularization=0.0).moments
    torch.testing.assert_close(found.mean[0], x.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found.covariance[0], torch.cov(x.T, correction=0), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("step_power", [None, 0.6])
def test_in_minibatches_it_is_as_good_as_sklearn_on_all_rows(step_power):
    x, label = blobs(3000)
    batch = GaussianMixture(3, random_state=0, reg_covar=1e-2).fit(x.numpy())
    mixture = fitted(x, 50, components=3, step_power=step_power, regularization=1e-4)
    test, _ = blobs(1000, seed=1)
    assert mixture.score(test) > batch.score(test.numpy()) - 0.1
    for component in range(3):
        own = label[mixture.predict(x).numpy() == component]
        assert np.bincount(own).max() / len(own) > 0.97


def test_stepwise_em_follows_rows_that_drift():
    first, _ = blobs(500, centers=1)
    later = first + 20
    both = torch.cat([first, later])
    exact, stepwise = fitted(both), fitted(both, step_power=0.6)
    assert stepwise.score(later) > exact.score(later)
    gaps = [(found.mean[0] - later.mean(0)).norm() for found in (stepwise, exact)]
    assert gaps[0] < 0.3 * gaps[1]


def test_a_conversion_after_scoring_scores_alike():
    x, _ = blobs()
    mixture = fitted(x)
    before = mixture.score_samples(x)
    torch.testing.assert_close(
        mixture.double().score_samples(x.double()),
        before.double(),
        rtol=1e-4,
        atol=1e-4,
    )


def test_merging_single_gaussians_is_exact():
    x, _ = blobs()
    merged = fitted(x[:200]).merge(fitted(x[200:])).moments
    whole = fitted(x).moments
    assert float(merged.weight) == len(x)
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        merged.covariance, whole.covariance, rtol=1e-3, atol=1e-3
    )


def test_merging_keeps_as_many_components_as_asked_for_and_joins_the_alike():
    x, label = blobs(1200)
    parts = [fitted(x[label == index], components=2) for index in range(3)]
    mixture = IncrementalGMM(4, 3)
    for part in parts:
        mixture.merge(part)
    assert len(mixture.weight) == 3
    truth = torch.stack([x[label == index].mean(0) for index in range(3)])
    assert torch.cdist(truth, mixture.mean).amin(1).max() < 0.5
    assert float(mixture.rows) == len(x)


# IGMN ---------------------------------------------------------------------------------


def test_a_component_is_made_where_none_is_near():
    mixture = IncrementalGMM(2, 5, novelty=0.05)
    mixture.scale.fill_(1.0)
    mixture.partial_fit(torch.tensor([[0.0, 0.0]]))
    limit = chi2.ppf(0.95, 2) ** 0.5
    mixture.partial_fit(torch.tensor([[0.99 * limit, 0.0]]))
    assert len(mixture.weight) == 1
    mixture = IncrementalGMM(2, 5, novelty=0.05)
    mixture.partial_fit(torch.tensor([[0.0, 0.0]]))
    mixture.partial_fit(torch.tensor([[1.01 * limit, 0.0]]))
    assert len(mixture.weight) == 2


def test_one_row_at_a_time_is_the_recursion_of_igmn():
    x, _ = blobs(200, width=3)
    mixture = IncrementalGMM(3, 4, novelty=0.01, minimal_age=1e9, initial_scale=3.0)
    mean, covariance, mass = [], [], []
    for row in x.double():
        mixture.partial_fit(row[None].float())
        distances = [
            float((row - m) @ torch.linalg.solve(c, row - m))
            for m, c in zip(mean, covariance, strict=True)
        ]
        if len(mean) < 4 and all(d >= chi2.ppf(0.99, 3) for d in distances):
            mean.append(row)
            covariance.append(9.0 * torch.eye(3).double())
            mass.append(1.0)
            continue
        log_p = torch.stack(
            [
                MultivariateNormal(m, c).log_prob(row) + np.log(s)
                for m, c, s in zip(mean, covariance, mass, strict=True)
            ]
        )
        for j, p in enumerate(log_p.softmax(0).tolist()):
            mass[j] += p
            step = p / mass[j]
            error = row - mean[j]
            mean[j] = mean[j] + step * error
            covariance[j] = (1 - step) * covariance[j] + (step - step**2) * (
                error[:, None] * error
            )
    found = mixture.moments
    torch.testing.assert_close(
        found.mean, torch.stack(mean).float(), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(
        found.covariance, torch.stack(covariance).float(), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("batch", [1, 4])
def test_small_minibatches_update_precisions_as_if_they_were_inverted(batch):
    options = {"novelty": 1e-3, "initial_scale": 1.0, "minimal_mass": 1.5}
    x, _ = blobs(150, width=16)
    fast = fitted(x, batch, components=6, **options)
    slow = IncrementalGMM(16, 6, **options)
    slow.covariance = "low_rank"  # of full rank: the same mixture, inverted anew
    slow.rank = 16
    slow.factor, slow.diagonal = torch.zeros(0, 16, 16), torch.zeros(0, 16)
    for part in torch.split(x, batch):
        slow.partial_fit(part)
    assert fast._updated is not None
    assert slow._updated is None
    assert len(fast.weight) == len(slow.weight)
    torch.testing.assert_close(
        fast.score_samples(x), slow.score_samples(x), rtol=2e-3, atol=2e-3
    )
    fresh = IncrementalGMM(16, 6, **options)
    fresh.load_state_dict(fast.state_dict())
    torch.testing.assert_close(
        fast.score_samples(x), fresh.score_samples(x), rtol=1e-3, atol=1e-3
    )


def test_novelty_finds_the_groups_by_itself_in_minibatches():
    x, label = blobs(900)
    mixture = fitted(x, 30, components=10, novelty=1e-4, initial_scale=0.5)
    found = mixture.predict(x).numpy()
    used = [own for own in range(len(mixture.weight)) if (found == own).any()]
    assert 3 <= len(used) <= 6
    assert sum(np.bincount(label[found == own]).max() for own in used) / len(x) > 0.97


def test_a_component_that_gathers_nothing_is_pruned():
    mixture = IncrementalGMM(2, 5, novelty=1e-6, minimal_age=20, minimal_mass=2.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 2, generator=generator)
    mixture.partial_fit(x[:50])
    mixture.partial_fit(torch.full((1, 2), 60.0))
    assert len(mixture.weight) == 2
    mixture.partial_fit(x[50:])
    assert len(mixture.weight) == 1


# Robustness and state -----------------------------------------------------------------


def test_high_dimensions_do_not_underflow():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(900, 256, generator=generator)
    mixture = fitted(x, 300, components=2)
    assert mixture.score_samples(x * 5).isfinite().all()
    torch.testing.assert_close(mixture.predict_proba(x).sum(1), torch.ones(900))


@pytest.mark.parametrize("covariance", ["full", "diagonal", "low_rank"])
def test_the_state_round_trips_and_learning_goes_on_alike(covariance):
    x, _ = blobs()
    mixture = fitted(x[:300], components=3, covariance=covariance, rank=2)
    file = io.BytesIO()
    torch.save(mixture.state_dict(), file)
    file.seek(0)
    other = IncrementalGMM(4, 3, covariance, rank=2)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(mixture.score_samples(x), other.score_samples(x))
    mixture.partial_fit(x[300:])
    other.partial_fit(x[300:])
    assert torch.equal(mixture.score_samples(x), other.score_samples(x))


def test_low_rank_takes_less_space():
    x, _ = blobs(400, width=40)

    def size(mixture):
        return sum(value.numel() for value in mixture.state_dict().values())

    full, low = fitted(x), fitted(x, covariance="low_rank", rank=4)
    assert size(low) < 0.2 * size(full)


def test_samples_have_the_moments_they_are_drawn_from():
    x, _ = blobs()
    mixture = fitted(x)
    drawn = mixture.sample(20_000)
    torch.testing.assert_close(drawn.mean(0), mixture.mean[0], rtol=0.05, atol=0.1)
    assert torch.equal(drawn, mixture.sample(20_000))
    expected = mixture.parameters_.covariance[0]
    torch.testing.assert_close(torch.cov(drawn.T), expected, rtol=0.1, atol=0.3)


def test_arrays_are_taken_as_tensors_are():
    x, _ = blobs()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture = IncrementalGMM(4).partial_fit(x.numpy().astype(np.float64))
    assert mixture.score_samples(x.numpy()).shape == (600,)


def test_an_empty_mixture_says_what_to_do():
    with pytest.raises(TrainingError, match="call partial_fit first"):
        IncrementalGMM(4).score_samples(torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"covariance": "tied"}, "'full', 'diagonal' or 'low_rank'"),
        ({"step_power": 0.5}, r"step_power in \(0.5, 1\]"),
        ({"novelty": 1.0}, r"novelty in \(0, 1\)"),
        ({"components": 0}, "at least one dimension and one component"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        IncrementalGMM(4, **options)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 5), r"shape \(N, 4\), got \(3, 5\)"),
        (torch.zeros(4), r"shape \(N, 4\), got \(4,\)"),
        (torch.full((2, 4), torch.nan), "finite"),
    ],
)
def test_wrong_rows_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        IncrementalGMM(4).partial_fit(x)


def test_it_starts_from_given_moments():
    x = torch.randn(300, 3)
    half = Moments.of(x, torch.eye(2).repeat_interleave(150, 0))
    started = IncrementalGMM(3, 2, regularization=0.0).start(half)
    found = started.parameters_
    torch.testing.assert_close(found.weight, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(found.mean, half.mean)
    torch.testing.assert_close(found.covariance, half.covariance)
    # 300 rows more weigh as much as those it started from
    started.partial_fit(torch.randn(300, 3) + 100)
    assert float(started.moments.pooled().mean[0, 0]) == pytest.approx(50, abs=1)
