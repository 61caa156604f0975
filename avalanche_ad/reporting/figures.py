"""Figures: score maps over images, and matrices of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["heat_map", "matrix_figure", "save_heat_map"]


def heat_map(
    image: npt.NDArray[np.uint8],
    score_map: npt.NDArray[np.floating],
    low: float,
    high: float,
    opacity: float = 0.6,
) -> npt.NDArray[np.uint8]:
    """Lay a score map over an image, in colours that fade in with the score.

    :param image: RGB (H, W, 3).
    :param score_map: (h, w), resized to the image.
    :param low: score at which nothing is shown.
    :param high: score at which the colour is full.
    :param opacity: of the full colour.
    :return: RGB (H, W, 3).
    """
    height, width = image.shape[:2]
    resized = Image.fromarray(score_map.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    level = np.clip((np.asarray(resized) - low) / max(high - low, 1e-12), 0.0, 1.0)
    color = colormaps["inferno"](level)[..., :3] * 255.0
    weight = (opacity * level)[..., None]
    mixed = image * (1 - weight) + color * weight
    return np.rint(mixed).astype(np.uint8)


def save_heat_map(
    path: Path,
    image: npt.NDArray[np.uint8],
    score_map: npt.NDArray[np.floating],
    low: float,
    high: float,
) -> None:
    """Write :func:`heat_map` beside the image itself as one PNG."""
    pair = np.concatenate([image, heat_map(image, score_map, low, high)], axis=1)
    Image.fromarray(pair).save(path)


def matrix_figure(
    matrix: Sequence[Sequence[float | None]], title: str, names: Sequence[str]
) -> Figure:
    """Draw a matrix of results: the value on every experience after every training.

    :param matrix: R[i][j], ``None`` where not evaluated.
    :param title: heading.
    :param names: a name per experience.
    """
    values = np.array(
        [[np.nan if v is None else v for v in row] for row in matrix], dtype=float
    )
    figure = Figure(figsize=(1.2 + 0.9 * len(names), 0.9 + 0.7 * len(names)))
    axes = figure.subplots()
    axes.imshow(values, vmin=0.5, vmax=1.0, cmap="viridis")
    for i, j in np.argwhere(~np.isnan(values)):
        light = values[i, j] > 0.8
        axes.text(
            j,
            i,
            f"{values[i, j]:.2f}",
            ha="center",
            va="center",
            color="black" if light else "white",
        )
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), [f"after {i + 1}" for i in range(len(names))])
    axes.set_title(title)
    figure.tight_layout()
    return figure
