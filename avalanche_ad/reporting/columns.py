"""What a comparison shows: columns of the metrics of every run, and of further ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "AUROCS",
    "COLUMNS",
    "COST_COLUMNS",
    "CSV_COLUMNS",
    "FINAL_COLUMNS",
    "ORACLE_COLUMNS",
    "STREAM_COLUMNS",
    "TERMINAL_COLUMNS",
    "Column",
    "further_columns",
    "further_metrics",
]

AUROCS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC"}
"""The metrics that figures and matrices show, with their headings."""


@dataclass(frozen=True)
class Column:
    """A column of a comparison: a summary of one metric.

    :param title: heading.
    :param section: key of ``results.json``, for example ``"final"``.
    :param metric: key within the section.

    >>> Column("AUPRO", "final", "aupro") in FINAL_COLUMNS
    True
    """

    title: str
    section: str
    metric: str


def _pair(section: str, words: str) -> tuple[Column, Column]:
    """Return a measure of image and of pixel AUROC."""
    return (
        Column(f"image {words}", section, "image_auroc"),
        Column(f"pixel {words}", section, "pixel_auroc"),
    )


_IMAGE, _PIXEL = _pair("final", "AUROC")
_AUPRO = Column("AUPRO", "final", "aupro")
_ACCURACY = Column("category accuracy", "final", "category_accuracy")
_FORGETTING = _pair("forgetting", "forgetting")
_FROM_BEST = _pair("forgetting_max", "forgetting from best")
_TRANSFER = _pair("fwt", "forward transfer")
_LEARNED = _pair("plasticity", "AUROC when learned")
_STEPS = _pair("step_mean", "AUROC, step mean")
_TRAIN = Column("train s", "seconds", "train")

FINAL_COLUMNS = (
    _IMAGE,
    Column("image AP", "final", "image_ap"),
    Column("image F1-max", "final", "image_f1max"),
    _PIXEL,
    Column("pixel AP", "final", "pixel_ap"),
    Column("pixel F1-max", "final", "pixel_f1max"),
    _AUPRO,
)
ORACLE_COLUMNS = (
    _ACCURACY,
    _IMAGE,
    Column("image AUROC (oracle)", "final", "image_auroc_oracle"),
    _PIXEL,
    Column("pixel AUROC (oracle)", "final", "pixel_auroc_oracle"),
    _AUPRO,
    Column("AUPRO (oracle)", "final", "aupro_oracle"),
)
STREAM_COLUMNS = tuple(
    pair[level]
    for level in (0, 1)
    for pair in (_STEPS, _LEARNED, _FORGETTING, _FROM_BEST, _TRANSFER)
)
COST_COLUMNS = (
    _TRAIN,
    Column("eval s", "seconds", "eval"),
    Column("exemplars MB", "memory_mb", "exemplars"),
    Column("statistics MB", "memory_mb", "statistics"),
    Column("parameters MB", "memory_mb", "parameters"),
)
COLUMNS = tuple(
    dict.fromkeys((*FINAL_COLUMNS, *ORACLE_COLUMNS, *STREAM_COLUMNS, *COST_COLUMNS))
)
"""All that is compared, once each."""
CSV_COLUMNS = (*COLUMNS, *_pair("bwt", "backward transfer"))
"""Backward transfer is forgetting with the other sign: for spreadsheets only."""
TERMINAL_COLUMNS = (
    _IMAGE,
    _PIXEL,
    _AUPRO,
    *_FORGETTING,
    _ACCURACY,
    ORACLE_COLUMNS[2],
    _TRAIN,
)

_ORACLE = "_oracle"
_KNOWN = {column.metric for column in (*FINAL_COLUMNS, *ORACLE_COLUMNS)}


def further_metrics(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics of runs that are no part of every run, such as one's own.

    >>> further_metrics([{"final": {"aupro": 0.5, "mine": 0.5, "mine_oracle": 0.5}}])
    ['mine']
    """
    names = dict.fromkeys(name for run in results for name in run.get("final", {}))
    return [one for one in names if one not in _KNOWN and not one.endswith(_ORACLE)]


def further_columns(results: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns of :func:`further_metrics`, headed by their names."""
    found = []
    for name in further_metrics(results):
        known = f"{name}{_ORACLE}"
        found.append(Column(name, "final", name))
        if any(known in run.get("final", {}) for run in results):
            found.append(Column(f"{name} (oracle)", "final", known))
        found += [
            Column(f"{name}, step mean", "step_mean", name),
            Column(f"{name} when learned", "plasticity", name),
            Column(f"{name} forgetting", "forgetting", name),
            Column(f"{name} forgetting from best", "forgetting_max", name),
        ]
    return tuple(found)
