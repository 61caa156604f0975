import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avalanche_ad.features.whitening import whitening


def drawn(channels, seed):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(channels, channels, generator=generator)
    return torch.randn(4000, channels, generator=generator) @ mixed + 3


@given(
    seed=st.integers(0, 50),
    parts=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    kept=st.integers(0, 2),
)
def test_components_are_centred_uncorrelated_and_of_unit_variance(seed, parts, kept):
    channels = sum(parts)
    kept = min(kept, channels)
    rows = drawn(channels, seed)
    for stacked in (None, parts):
        mean, matrix = whitening(rows, 0.0, kept, stacked)
        white = (rows - mean) @ matrix
        assert white.shape[1] == (kept or channels)
        torch.testing.assert_close(
            torch.cov(white.T).reshape(white.shape[1], -1),
            torch.eye(white.shape[1]),
            rtol=0,
            atol=0.02,
        )
        assert white.mean(0).abs().max() < 1e-2


@pytest.mark.parametrize("factor", [1e-3, 50.0])
def test_the_scale_of_a_part_does_not_matter(factor):
    rows = drawn(6, 0)
    scaled = torch.cat([rows[:, :2], factor * rows[:, 2:]], dim=1)
    mean, matrix = whitening(rows, channels=3, parts=(2, 4))
    other_mean, other = whitening(scaled, channels=3, parts=(2, 4))
    first, second = (rows - mean) @ matrix, (scaled - other_mean) @ other
    sign = (first * second).sum(0).sign()
    torch.testing.assert_close(first, second * sign, rtol=1e-3, atol=1e-3)


def test_a_part_of_many_columns_does_not_rule_the_first_component():
    """Two columns that agree against eight that do not: each part has half the say."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(5000, 1, generator=generator)
    rows = torch.cat([shared, shared, torch.randn(5000, 8, generator=generator)], 1)
    _, matrix = whitening(rows, channels=1, parts=(2, 8))
    share = matrix[:2].square().sum() / matrix.square().sum()
    assert share > 0.95
    two = torch.cat(
        [torch.randn(5000, 2, generator=generator), shared.expand(-1, 8)], 1
    )
    _, matrix = whitening(two, channels=1, parts=(2, 8))
    assert matrix[2:].square().sum() / matrix.square().sum() > 0.95
