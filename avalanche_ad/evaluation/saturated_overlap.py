"""Saturated per-region overlap (sPRO), exact, as a pure function of arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from avalanche_ad.datasets.regions import Region
from avalanche_ad.errors import AvalancheADError
from avalanche_ad.evaluation.detection import UndefinedMetricWarning
from avalanche_ad.evaluation.detection_curve import (
    area_to_limit,
    check_limit,
    check_scores,
)

__all__ = ["au_spro", "connected_regions", "mean_au_spro"]

_EIGHT_CONNECTED = np.ones((3, 3), dtype=np.bool_)


def au_spro(
    score_maps: npt.ArrayLike,
    regions: Sequence[Sequence[Region]],
    fpr_limit: float = 0.05,
) -> float | None:
    r"""Area under the curve of saturated per-region overlap over false-positive rate.

    At a threshold, P being the pixels at or above it, a region A with saturation s (in
    pixels) has

    .. math:: \text{sPRO} = \min(|A \cap P| / s, 1),

    and the curve is its mean over all regions of all images. FPR is the share at or
    above it of the pixels that are in no region, those of normal images included. The
    mean over FPR is piecewise linear between distinct thresholds; its integral from 0
    to the limit, divided by the limit, is returned. Where every s is the area of A it
    is :func:`~avalanche_ad.evaluation.detection.aupro` of regions that may overlap.

    Source: Bergmann et al., Beyond Dents and Scratches, IJCV 130, 2022, section 4.2.
    The publisher's evaluation code approximates the curve by refined thresholds; here
    it is exact.

    :param score_maps: (N, H, W), higher is more anomalous.
    :param regions: of every image, its defects, (H, W); none of a normal image. One
        without a pixel, such as a tiny one after resizing, counts for nothing.
    :param fpr_limit: where the integral ends, in (0, 1].
    :return: a value in [0, 1]; ``None``, with an :class:`UndefinedMetricWarning`, when
        there is no region or no normal pixel.
    :raises AvalancheADError: when the shapes differ, a score is not finite, or a
        saturation or the limit is out of range.

    >>> maps = np.array([[[0.9, 0.2], [0.1, 0.3]]])
    >>> half = Region(np.array([[True, True], [False, False]]), saturation=0.5)
    >>> au_spro(maps, [[half]])
    1.0
    """
    scores = check_scores(score_maps)
    check_limit(fpr_limit)
    _check_regions(scores, regions)
    drawn = [
        (index, region)
        for index, own in enumerate(regions)
        for region in own
        if region.mask.any()
    ]
    defective = np.zeros(scores.shape, dtype=np.bool_)
    for index, region in drawn:
        defective[index] |= region.mask
    normal = np.sort(scores[~defective])
    if not drawn or not normal.size:
        lacking = "normal pixel" if drawn else "region"
        warnings.warn(
            f"sPRO undefined: no {lacking}; the value is None",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return None
    found = [
        _shares(scores[index][region.mask], region.saturation)
        for index, region in drawn
    ]
    values = np.concatenate([score for score, _ in found])
    shares = np.concatenate([share for _, share in found])
    order = np.argsort(-values, kind="stable")
    values = values[order]
    last = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    overlap = np.cumsum(shares[order])[last] / len(drawn)
    return area_to_limit(
        normal.size - np.searchsorted(normal, values[last], side="right"),
        normal.size - np.searchsorted(normal, values[last], side="left"),
        normal.size,
        overlap,
        fpr_limit,
    )


def mean_au_spro(
    score_maps: npt.ArrayLike,
    regions: Sequence[Sequence[Region]],
    fpr_limit: float = 0.05,
) -> float | None:
    """Mean of :func:`au_spro` over the kinds of anomalies.

    Each kind is measured on its own images and the normal ones, as MVTec LOCO AD's
    publisher does for logical and for structural anomalies.

    :param score_maps: (N, H, W), higher is more anomalous.
    :param regions: of every image, its defects, which are of one kind; none of a normal
        image.
    :param fpr_limit: where the integrals end, in (0, 1].
    :return: as :func:`au_spro`.
    :raises AvalancheADError: as :func:`au_spro`.
    """
    scores = np.asarray(score_maps)
    kinds = [own[0].kind if own else None for own in regions]
    values = []
    for kind in sorted({kind for kind in kinds if kind is not None}) or [""]:
        chosen = [i for i, found in enumerate(kinds) if found in (kind, None)]
        own = [regions[index] for index in chosen]
        values.append(au_spro(scores[chosen], own, fpr_limit))
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if len(defined) == len(values) else None


def connected_regions(masks: Iterable[npt.NDArray[np.bool_]]) -> list[list[Region]]:
    """Return the 8-connected regions of masks, each saturated by all its pixels.

    :param masks: one (H, W) of every image.

    >>> corners = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]])
    >>> [len(own) for own in connected_regions([corners])]
    [3]
    """
    found = []
    for mask in masks:
        labels, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        found.append([Region(labels == number) for number in range(1, count + 1)])
    return found


def _shares(
    scores: npt.NDArray[np.floating], saturation: float
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.float64]]:
    """Return a region's scores, falling, and what each adds to its overlap.

    The first to be found add one over the saturation, then none does: n pixels add up
    to min(n / s, 1).
    """
    needed = saturation * scores.size
    falling = -np.sort(-scores)
    return falling, np.clip(needed - np.arange(scores.size), 0, 1) / needed


def _check_regions(
    scores: npt.NDArray[np.floating], regions: Sequence[Sequence[Region]]
) -> None:
    if scores.ndim != 3 or len(regions) != len(scores):
        raise AvalancheADError(
            "expected score maps of shape (N, H, W) and the regions of N images, got "
            f"{scores.shape} and those of {len(regions)}"
        )
    for region in (region for own in regions for region in own):
        if region.mask.shape != scores.shape[1:]:
            raise AvalancheADError(
                f"expected regions of the score maps' size {scores.shape[1:]}, got "
                f"{region.mask.shape}"
            )
        if not 0 < region.saturation <= 1:
            raise AvalancheADError(
                f"expected a saturation in (0, 1], got {region.saturation}"
            )
