import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

from avalanche_ad.models.hgad.mixture import (
    category_log_likelihood,
    inner_centers,
    squared_distances,
)
from avalanche_ad.models.scoring import (
    AnomalyScores,
    negative_entropy,
    normality_map,
    product_score_map,
    upsampling_matrix,
)


def golden_levels(golden):
    return [golden["score_logp_level0"], golden["score_logp_level1"]]


def test_score_map_is_hgads(golden):
    score = product_score_map(golden_levels(golden), [], (32, 32), sigma=4.0)
    torch.testing.assert_close(score, golden["score_map_32"], rtol=1e-5, atol=1e-5)


def test_log_likelihoods_of_all_categories_are_hgads(golden):
    centers = inner_centers(
        torch.cat([golden["mu"][:, None], golden["mu_delta"]], dim=1)
    )
    z, log_det = golden["z"][None], golden["logdet"][None]
    columns = [
        category_log_likelihood(z, log_det, centers[c], golden["phi_intra"][c])[0]
        for c in range(len(centers))
    ]
    found = torch.stack(columns, dim=1) / z.shape[-1]
    torch.testing.assert_close(
        found, golden["logp_per_dim_by_class"], rtol=1e-5, atol=1e-5
    )


def test_negative_entropy_is_hgads(golden):
    found = negative_entropy(squared_distances(golden["z"], golden["mu"]))
    torch.testing.assert_close(found, golden["neg_entropy"], rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(categories=st.integers(1, 20), scale=st.floats(0, 1e4), seed=st.integers(0, 99))
def test_negative_entropy_is_finite_and_bounded(categories, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    found = negative_entropy(scale * torch.rand(7, categories, generator=generator))
    assert bool(found.isfinite().all())
    assert float(found.max()) <= 1e-6
    assert float(found.min()) >= -np.log(categories) - 1e-5


@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    mask=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sigma=st.sampled_from([0.0, 1.0, 4.0]),
    seed=st.integers(0, 99),
)
def test_upsampling_and_smoothing_are_torchs_and_scipys(size, mask, sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(2, *size, generator=generator, dtype=torch.float64)
    large = interpolate(level[:, None], mask, mode="bilinear", align_corners=True)
    expected = large[:, 0].numpy()
    if sigma:
        expected = np.stack([gaussian_filter(image, sigma) for image in expected])
    found = normality_map([level], mask, sigma)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("source", "target"), [(1, 8), (4, 16), (5, 5), (7, 3)])
def test_upsampling_leaves_constants_alone(source, target):
    matrix = upsampling_matrix(source, target, 2.0, torch.zeros(1))
    assert matrix.shape == (target, source)
    torch.testing.assert_close(matrix.sum(1), torch.ones(target))


def test_levels_are_summed():
    levels = [torch.rand(2, 4, 4), torch.rand(2, 2, 2)]
    parts = [normality_map([level], (8, 8), 1.0) for level in levels]
    torch.testing.assert_close(normality_map(levels, (8, 8), 1.0), sum(parts))


def test_released_score_multiplies_both_maps(golden):
    likelihood = golden_levels(golden)
    entropy = [-level.square() for level in likelihood]
    both = product_score_map(likelihood, entropy, (16, 16))
    alone = [product_score_map(kind, [], (16, 16)) for kind in (likelihood, entropy)]
    torch.testing.assert_close(both, alone[0] * alone[1])


def test_no_level_is_an_error():
    with pytest.raises(ValueError, match="at least one level"):
        normality_map([], (4, 4), 0.0)
    with pytest.raises(ValueError, match="at least one level"):
        product_score_map([], [], (4, 4))


def test_scores_are_joined_in_order():
    def part(value, count):
        return AnomalyScores(
            torch.full((count,), value),
            torch.full((count, 2, 2), value),
            torch.full((count,), int(value)),
        )

    joined = AnomalyScores.concatenate([part(1.0, 2), part(3.0, 1)])
    assert joined.image.tolist() == [1, 1, 3]
    assert joined.maps[:, 0, 0].tolist() == [1, 1, 3]
    assert joined.category.tolist() == [1, 1, 3]
