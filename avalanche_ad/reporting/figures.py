"""Figures: score maps over images, and matrices of strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

__all__ = ["heat_map", "matrices_figure", "save_heat_map", "training_curves"]

Matrix = Sequence[Sequence[float | None]]


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


def matrices_figure(
    matrices: Mapping[str, Matrix], title: str, columns: int = 4
) -> Figure:
    """Draw matrices of results: the value on every task after every training.

    :param matrices: name → R, whose R[i][j] is the value on task j after training on
        task i, ``None`` where not evaluated; all of one size.
    :param title: heading of the figure.
    :param columns: matrices side by side.
    """
    values = {
        name: np.array(
            [[np.nan if v is None else v for v in row] for row in matrix], dtype=float
        )
        for name, matrix in matrices.items()
    }
    tasks = max(len(matrix) for matrix in values.values())
    across = min(columns, len(values))
    down = -(-len(values) // across)
    side = 0.5 * tasks + 0.7
    figure = Figure(
        figsize=(max(5.0, across * side + 1.2), down * (side + 0.15) + 0.7),
        layout="constrained",
    )
    figure.suptitle(title)
    grid = figure.subplots(down, across, squeeze=False)
    names = [str(task + 1) for task in range(tasks)]
    for axes in grid.flat[len(values) :]:
        axes.set_visible(False)
    for index, (name, matrix) in enumerate(values.items()):
        axes = grid.flat[index]
        drawn = axes.imshow(matrix, vmin=0.5, vmax=1.0, cmap="viridis")
        for i, j in np.argwhere(~np.isnan(matrix)):
            axes.text(
                j,
                i,
                f"{matrix[i, j]:.2f}".removeprefix("0"),
                ha="center",
                va="center",
                fontsize=8,
                color="black" if matrix[i, j] > 0.8 else "white",
            )
        axes.set_title(name, fontsize=10)
        axes.set_xticks(range(tasks), names)
        axes.set_yticks(range(tasks), names)
        if index % across == 0:
            axes.set_ylabel("after training on task")
        if index + across >= len(values):
            axes.set_xlabel("value on task")
    figure.colorbar(drawn, ax=grid, shrink=0.8, extend="min")
    return figure


def training_curves(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draw loss and accuracy of training and validation over epochs.

    :param rows: one per epoch: ``epoch``, ``loss``, ``train_accuracy``,
        ``validation_loss`` and ``validation_accuracy``.
    """
    figure = Figure(figsize=(8, 3), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    pairs = {
        "loss": ("loss", "validation_loss"),
        "accuracy": ("train_accuracy", "validation_accuracy"),
    }
    for axes, (title, keys) in zip(figure.subplots(1, 2), pairs.items(), strict=True):
        for key, label in zip(keys, ("training", "held out"), strict=True):
            axes.plot(epochs, [row[key] for row in rows], marker=".", label=label)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
