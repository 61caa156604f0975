import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ad.errors import TrainingError
from avalanche_ad.models.gaussians import (
    low_rank_plus_diagonal,
    precision_roots,
    woodbury_update,
)


def rows(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    drawn = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return drawn @ mixing + 3


@pytest.mark.parametrize("rank", [0, 1, 3, 6, 9])
def test_low_rank_keeps_the_diagonal_and_stays_positive(rank):
    covariance = torch.cov(rows(50, 6).T)
    factor, diagonal = low_rank_plus_diagonal(covariance, rank)
    assert factor.shape == (6, min(rank, 6))
    dense = factor @ factor.T + diagonal.diag()
    torch.testing.assert_close(dense.diagonal(), covariance.diagonal())
    assert (diagonal >= 0).all()
    assert torch.linalg.eigvalsh(dense).min() > 0
    if rank >= 6:
        torch.testing.assert_close(dense, covariance)


def test_low_rank_finds_what_is_of_low_rank():
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(8, 2, generator=generator).double()
    covariance = loadings @ loadings.T + 0.3 * torch.eye(8).double()
    factor, diagonal = low_rank_plus_diagonal(covariance, 2)
    torch.testing.assert_close(factor @ factor.T + diagonal.diag(), covariance)


@given(st.integers(1, 12), st.floats(0.05, 3.0), st.integers(0, 99))
def test_woodbury_equals_the_inverse(columns, decay, seed):
    covariance = torch.cov(rows(40, 6, seed).T)
    factor = rows(6, columns, seed + 1)
    precision, log_det = woodbury_update(
        torch.linalg.inv(covariance), torch.logdet(covariance), decay, factor
    )
    expected = decay * covariance + factor @ factor.T
    torch.testing.assert_close(
        precision @ expected, torch.eye(6).double(), atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(log_det, torch.logdet(expected))


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_what_is_no_covariance_is_told(value):
    with pytest.raises(TrainingError, match="not positive definite.*learning rate"):
        precision_roots(torch.full((2, 3, 3), value))
