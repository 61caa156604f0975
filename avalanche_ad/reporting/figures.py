"""Figures: score maps over images, matrices of strategies, means with intervals."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:
    from avalanche_ad.reporting.paired import Interval

__all__ = [
    "draw_intervals",
    "heat_map",
    "is_heat_map",
    "matrices_figure",
    "over_seeds",
    "rows_figure",
    "save_heat_map",
    "steps_figure",
]

_HEAT_MAP = "heat map of avalanche-ad predict"
Matrix = Sequence[Sequence[float | None]]
_LOWEST = 0.3  # of the matrices' colours: a worse AUROC than chance shows too
_WIDEST = 10.5  # inches of matrices side by side


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
    """Write :func:`heat_map` beside the image itself as one PNG.

    It is there whole or not at all, and says in its first bytes what it is, see
    :func:`is_heat_map`.
    """
    pair = np.concatenate([image, heat_map(image, score_map, low, high)], axis=1)
    note = PngInfo()
    note.add_text("Comment", _HEAT_MAP)
    # hidden and of no image's name, so that nobody takes it for an image
    aside = path.with_name(f".{os.getpid()}-{path.stem[-40:]}.writing")
    try:
        with aside.open("wb") as file:
            Image.fromarray(pair).save(file, format="PNG", pnginfo=note)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def is_heat_map(path: Path) -> bool:
    """Whether a file is what :func:`save_heat_map` wrote, by its first bytes."""
    if path.suffix.lower() != ".png":
        return False
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return _HEAT_MAP.encode() in file.read(256)
    except OSError:
        return False  # whoever reads it will say so


def matrices_figure(
    matrices: Mapping[str, Matrix], title: str, columns: int | None = None
) -> Figure:
    """Draw matrices of results: the value on every task after every training.

    :param matrices: name → R, whose R[i][j] is the value on task j after training on
        task i, ``None`` where not evaluated; all of one size.
    :param title: heading of the figure.
    :param columns: matrices side by side, by default as many as a page's width holds.
    """
    values = {
        name: np.array(
            [[np.nan if v is None else v for v in row] for row in matrix], dtype=float
        )
        for name, matrix in matrices.items()
    }
    tasks = max(len(matrix) for matrix in values.values())
    side = max(0.27 * tasks + 0.3, 1.65)
    across = min(columns or max(2, int(_WIDEST / side)), len(values))
    down = -(-len(values) // across)
    width = max(5.0, across * side + 0.3)
    figure = Figure((width, down * (side + 0.25) + 1.1), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(down, across, squeeze=False)
    names = [str(task + 1) for task in range(tasks)]
    for axes in grid.flat[len(values) :]:
        axes.set_visible(False)
    for axes, (name, matrix) in zip(grid.flat, values.items(), strict=False):
        drawn = axes.imshow(matrix, vmin=_LOWEST, vmax=1.0, cmap="viridis")
        for i, j in np.argwhere(~np.isnan(matrix)):
            axes.text(
                j,
                i,
                f"{matrix[i, j]:.2f}".removeprefix("0"),
                ha="center",
                va="center",
                fontsize=7.5,
                color="black" if matrix[i, j] > 0.65 else "white",
            )
        lines = wrap(name.replace("_", "_ "), 24) if len(name) > 20 else [name]
        axes.set_title("\n".join(lines).replace("_ ", "_"), fontsize=8)
        axes.set_xticks(range(tasks), names, fontsize=7)
        axes.set_yticks(range(tasks), names, fontsize=7)
        axes.tick_params(length=2, pad=2)
    bar = figure.colorbar(
        drawn,
        ax=grid,
        location="bottom",
        shrink=2.5 / width,
        ticks=np.linspace(_LOWEST, 1.0, 8),
        aspect=18,
        pad=0.02,
        extend="min",
    )
    bar.set_label("row: after training on task; column: value on task", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def draw_intervals(
    axes: Axes,
    places: Iterable[float],
    means: Sequence[Interval],
    horizontal: bool = False,
    **style: Any,
) -> None:
    """Draw means as dots, with their confidence intervals where there are.

    :param axes: where to.
    :param places: of the dots, on the axis that does not show the values.
    :param means: a mean at each place; undefined ones are left out.
    :param horizontal: whether the values go along x.
    :param style: of ``Axes.errorbar``.
    """
    known = [
        (at, one) for at, one in zip(places, means, strict=True) if one.mean is not None
    ]
    at = [place for place, _ in known]
    centres = np.array([one.mean for _, one in known], dtype=float)
    ends = np.array([(one.low, one.high) for _, one in known], dtype=float)
    reach = np.abs(ends.reshape(-1, 2).T - centres)
    style = {"marker": "o", "markersize": 4.5, "capsize": 2.5, "lw": 1.4, **style}
    if horizontal:
        axes.errorbar(centres, at, xerr=reach, **style)
    else:
        axes.errorbar(at, centres, yerr=reach, **style)


def over_seeds(count: int) -> str:
    """Return what dots and bars are, for a figure's title."""
    return f"mean and 95 % interval of {count} seeds" if count > 1 else "one seed"


def rows_figure(
    panels: Mapping[str, Mapping[str, Interval]],
    groups: Mapping[str, Sequence[str]],
    title: str,
    guides: Sequence[str] = (),
) -> Figure:
    """Draw a row of dots with confidence intervals per name, a panel per measure.

    :param panels: label of the axis → name of the row → mean.
    :param groups: for the legend: name of the group → names of the rows that have its
        colour.
    :param title: heading of the figure.
    :param guides: rows whose means are lines from top to bottom too, to compare with.
    """
    names = list(next(iter(panels.values())))
    figure = Figure(figsize=(9, 0.24 * len(names) + 1.5), layout="constrained")
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    for axes, (label, found) in zip(grid.flat, panels.items(), strict=True):
        for group, members in groups.items():
            rows = [row for row, name in enumerate(names) if name in members]
            own = [found[names[row]] for row in rows]
            draw_intervals(axes, rows, own, True, linestyle="none", label=group)
        named = ", ".join(guides)  # once, in the legend
        for name in guides:
            if (mean := found[name].mean) is not None:
                style = {"color": "0.3", "lw": 0.9, "linestyle": ":", "zorder": 0}
                axes.axvline(mean, label=named, **style)
                named = ""
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].set_ylim(len(names) - 0.4, -0.6)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    if any(labels):
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def steps_figure(steps: Mapping[str, Sequence[float | None]], label: str) -> Figure:
    """Draw a value after each task, a line per strategy; the legend has the last order.

    :param steps: name → value after each task, ``None`` where undefined.
    :param label: what the value is.
    """
    ends = {
        name: next((v for v in reversed(values) if v is not None), None)
        for name, values in steps.items()
    }
    names = sorted(
        (name for name, end in ends.items() if end is not None),
        key=lambda name: -(ends[name] or 0.0),
    )
    figure = Figure(figsize=(9, max(4.0, 0.19 * len(names) + 1)), layout="constrained")
    axes = figure.subplots()
    tasks = range(1, 1 + max(map(len, steps.values())))
    colors = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for row, name in enumerate(names):
        values = np.array([np.nan if v is None else v for v in steps[name]])
        line = ("-", "--", ":", "-.")[row // len(colors) % 4]
        color = colors[row % len(colors)]
        axes.plot(tasks, values, line, marker="o", ms=4, color=color, label=name)
    axes.set(xlabel="after task", ylabel=label, xticks=tasks)
    axes.grid(alpha=0.3)
    if names:
        title = "best at the end first"
        figure.legend(loc="outside right upper", fontsize=8, title=title)
    return figure
