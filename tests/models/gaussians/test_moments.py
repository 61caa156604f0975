import torch
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ad.models.gaussians import Moments


def rows(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    drawn = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return drawn @ mixing + 3


def assert_same(found, expected):
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.covariance, expected.covariance)


def test_moments_of_rows_are_mean_and_covariance():
    x = rows(40, 5)
    found = Moments.of(x)
    assert float(found.weight) == 40
    torch.testing.assert_close(found.mean[0], x.mean(0))
    torch.testing.assert_close(found.covariance[0], torch.cov(x.T, correction=0))


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(0, 99))
def test_merging_is_the_same_as_taking_all_rows_at_once(first, second, count, seed):
    x = rows(first + second, 3, seed)
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(len(x), count, generator=generator, dtype=x.dtype) + 1e-3
    merged = Moments.of(x[:first], shares[:first]).merged(
        Moments.of(x[first:], shares[first:])
    )
    assert_same(merged, Moments.of(x, shares))


def test_merging_far_from_the_origin_loses_no_digits():
    x = rows(200, 3) * 1e-2
    far = x + 1e6
    merged = Moments.of(far[:50]).merged(Moments.of(far[50:]))
    expected = torch.cov(x.T, correction=0)
    torch.testing.assert_close(merged.covariance[0], expected, rtol=1e-5, atol=1e-9)


def test_a_sample_of_no_weight_changes_nothing():
    x = rows(20, 3)
    nothing = Moments(torch.zeros(1).double(), x[:1] * 0, torch.zeros(1, 3, 3).double())
    assert_same(Moments.of(x).merged(nothing), Moments.of(x))


def test_pooling_forgets_the_components():
    x = rows(60, 4)
    shares = torch.nn.functional.one_hot(torch.arange(60) % 3).double()
    assert_same(Moments.of(x, shares).pooled(), Moments.of(x))
