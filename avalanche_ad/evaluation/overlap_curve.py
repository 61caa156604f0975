"""The area under a curve of overlap over the false-positive rate, up to a limit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avalanche_ad.errors import AvalancheADError

__all__ = ["area_to_limit", "check_limit"]


def area_to_limit(
    above: npt.NDArray[np.integer],
    false: npt.NDArray[np.integer],
    negatives: int,
    overlap: npt.NDArray[np.floating],
    fpr_limit: float,
) -> float:
    """Integrate overlap over the false-positive rate up to a limit; divide by it.

    :param above: normal pixels strictly above each threshold, thresholds falling, (T,).
    :param false: normal pixels at or above it, (T,).
    :param negatives: all normal pixels.
    :param overlap: mean overlap at or above it, (T,).
    :param fpr_limit: in (0, 1].
    """
    # The curve runs level up to the normal pixels strictly above a threshold, then
    # in a straight line over those that tie with it.
    ends = np.column_stack((above, false)).ravel() / negatives
    x = np.concatenate(([0.0], ends, [1.0]))
    y = np.concatenate(([0.0, 0.0], np.repeat(overlap, 2)))
    inside = int(np.searchsorted(x, fpr_limit, side="right"))
    around = slice(inside - 1, inside + 1)
    x, y = (
        np.append(x[:inside], fpr_limit),
        np.append(y[:inside], np.interp(fpr_limit, x[around], y[around])),
    )
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]))) / 2 / fpr_limit


def check_limit(fpr_limit: float) -> None:
    """Refuse a limit of an integral that is not in (0, 1]."""
    if not 0 < fpr_limit <= 1:
        raise AvalancheADError(f"expected fpr_limit in (0, 1], got {fpr_limit}")
