"""From log-likelihoods and entropies to score maps and image scores.

Higher is more anomalous. HGAD sums the levels' normalities e^v after upsampling, turns
them into an anomaly score, and smooths it:

    s = b − G ∗ Σ_l U_l exp(v_l − m_l)

with v the log-likelihood per dimension (``likelihood``) or the negative entropy
(``uncertainty``), U_l the bilinear upsampling and G a Gaussian; their product is the
final score. The likelihood may enter as 1 + v instead of e^v, see
:class:`~avalanche_ad.models.density_model.DensityModel`. Upsampling and smoothing are
linear and separable and leave constants alone, so both are one matrix a side:
G U_l X U_lᵀ Gᵀ = A X Aᵀ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

__all__ = [
    "AnomalyScores",
    "negative_entropy",
    "normality_map",
    "product_score_map",
    "upsampling_matrix",
]


@dataclass(frozen=True)
class AnomalyScores:
    """Scores of N images; higher is more anomalous.

    :param image: (N,) maximum of the score map.
    :param maps: (N, H, W) score maps at mask size.
    :param category: (N,) index of the category the scores were computed for: the
        inferred one, or in oracle mode the given one.

    >>> one = AnomalyScores(torch.ones(1), torch.ones(1, 8, 8), torch.zeros(1))
    >>> AnomalyScores.concatenate([one, one]).maps.shape
    torch.Size([2, 8, 8])
    """

    image: Tensor
    maps: Tensor
    category: Tensor

    @staticmethod
    def concatenate(parts: Sequence[AnomalyScores]) -> AnomalyScores:
        """Join the scores of several minibatches."""
        return AnomalyScores(
            torch.cat([part.image for part in parts]),
            torch.cat([part.maps for part in parts]),
            torch.cat([part.category for part in parts]),
        )


def negative_entropy(squared_distance: Tensor) -> Tensor:
    """Return Σ_c p_c log p_c with p = softmax_c(−½ d_c).

    :param squared_distance: d (..., C), distances to the main centres.
    :return: (...), in nats, at most 0.
    """
    log_p = (-0.5 * squared_distance).log_softmax(-1)
    return (log_p.exp() * log_p).sum(-1)


@lru_cache(maxsize=64)
def _upsampling_matrix(
    source: int, target: int, sigma: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    if source == 1:
        matrix = np.ones((target, 1))
    else:
        # bilinear with aligned corners, as HGAD's
        position = np.arange(target) * ((source - 1) / max(target - 1, 1))
        left = np.minimum(position.astype(np.int64), source - 2)
        fraction = position - left
        rows = np.arange(target)
        matrix = np.zeros((target, source))
        matrix[rows, left] = 1 - fraction
        matrix[rows, left + 1] += fraction
    if sigma > 0:
        matrix = gaussian_filter1d(matrix, sigma, axis=0)
    return torch.from_numpy(matrix).to(device, dtype)


def upsampling_matrix(source: int, target: int, sigma: float, like: Tensor) -> Tensor:
    """Return A = G U: bilinear upsampling followed by Gaussian smoothing.

    :param source: rows of the level.
    :param target: rows of the mask.
    :param sigma: standard deviation of the Gaussian in pixels of the mask, 0 for none.
    :param like: a tensor that decides dtype and device.
    :return: (target, source); every row sums to 1.
    """
    return _upsampling_matrix(source, target, float(sigma), like.dtype, like.device)


def normality_map(
    levels: Sequence[Tensor], mask_size: tuple[int, int], sigma: float
) -> Tensor:
    """Return Σ_l G ∗ U_l x_l, the upsampled, smoothed and summed levels.

    :param levels: x_l, one tensor (N, h_l, w_l) per level.
    :param mask_size: (H, W).
    :param sigma: standard deviation of the smoothing in pixels of the mask.
    :return: (N, H, W).
    """
    height, width = mask_size
    total: Tensor | None = None
    for level in levels:
        rows = upsampling_matrix(level.shape[-2], height, sigma, level)
        columns = upsampling_matrix(level.shape[-1], width, sigma, level)
        part = rows @ level @ columns.T
        total = part if total is None else total + part
    if total is None:
        raise ValueError("expected at least one level, got none")
    return total


def product_score_map(
    log_likelihood: Sequence[Tensor],
    negative_entropies: Sequence[Tensor],
    mask_size: tuple[int, int],
    sigma: float = 4.0,
) -> Tensor:
    """Return HGAD's score maps as released: normalised by maxima over the test set.

    Only for comparison with HGAD's published numbers: its maxima are taken over all
    images passed, so the whole test split of a category must come in one call.

    :param log_likelihood: log p(x|c)/D, one tensor (N, h, w) per level.
    :param negative_entropies: Σ p log p, likewise; empty for the likelihood alone.
    :param mask_size: (H, W).
    :param sigma: standard deviation of the smoothing in pixels of the mask.
    :return: (N, H, W).

    Source: released code of Yao et al., ECCV 2024 (``convert_to_anomaly_scores``).
    """
    product: Tensor | None = None
    for kind in (log_likelihood, negative_entropies):
        if not len(kind):
            continue
        levels = [(level - level.max()).exp() for level in kind]
        bound = normality_map(levels, mask_size, 0.0).max()
        score = bound - normality_map(levels, mask_size, sigma)
        product = score if product is None else product * score
    if product is None:
        raise ValueError("expected at least one level, got none")
    return product
